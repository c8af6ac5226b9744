// Pictures from files. A picture's label is its folder's name, or else what the person says.
import { byId, say } from "./dom";
import { fromImage, type Picture } from "./pictures";

function labelOf(file: File, otherwise: string): string {
  const folders = file.webkitRelativePath.split("/").slice(0, -1);
  // Of pets/cats/1.jpg: cats. Of cats/1.jpg, where the person chose the folder cats: cats, too.
  return otherwise || folders[folders.length - 1] || "";
}

async function pictureOf(file: File, label: string): Promise<Picture | null> {
  try {
    const image = await createImageBitmap(file);
    const picture = fromImage(image, image.width, image.height, label);
    image.close();
    return picture;
  } catch {
    return null; // no picture, or of a kind that this browser doesn't know
  }
}

async function taken(files: FileList, otherwise: string, hint: string): Promise<Picture[]> {
  const labelled = [...files].map((file) => [file, labelOf(file, otherwise)] as const);
  if (labelled.some(([, label]) => !label)) {
    say(hint, "Say what is on these pictures first: write a label above.");
    return [];
  }
  const found: Picture[] = [];
  for (const [file, label] of labelled) {
    const picture = await pictureOf(file, label); // one after the other: a telephone's memory is small
    if (picture) found.push(picture);
  }
  const unread = labelled.length - found.length;
  const many = (number: number, thing: string) => `${number} ${thing}${number === 1 ? "" : "s"}`;
  say(hint, `${many(found.length, "picture")} kept.${unread ? ` ${many(unread, "file")} couldn't be read.` : ""}`);
  return found;
}

/** input: of files; label: of the field with their label; hint: where to say what came of it. */
export function letChoose(input: string, label: string, hint: string, add: (pictures: Picture[]) => void): void {
  const files = byId<HTMLInputElement>(input);
  files.addEventListener("change", () => {
    if (!files.files?.length) return;
    const otherwise = byId<HTMLInputElement>(label).value.trim();
    void taken(files.files, otherwise, hint).then((pictures) => {
      files.value = ""; // so that the same files can be chosen again
      if (pictures.length > 0) add(pictures);
    });
  });
}
