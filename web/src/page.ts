// The page: choose data, join, watch, leave.
import { chooseBackend } from "./backend";
import { letPhotograph, stopCamera } from "./camera";
import { count, type Data, mixed } from "./data";
import { byId, say, show } from "./dom";
import { letDrawDigits } from "./draw";
import { examples, hasExamples } from "./examples";
import { letChoose } from "./files";
import type { Picture } from "./pictures";
import { Progress } from "./progress";
import { Session } from "./session";
import { forgetAll, keep, kept } from "./store";

const SOURCES = ["examples", "draw", "files", "camera"];
const pictures: Picture[] = [];
let session: Session | null = null;

function token(): string {
  return byId<HTMLInputElement>("token").value.trim();
}

function source(): string {
  return document.querySelector<HTMLInputElement>("input[name=source]:checked")?.value ?? "";
}

function drawSummary(): void {
  const labels = new Map<string, number>();
  for (const { label } of pictures) labels.set(label, (labels.get(label) ?? 0) + 1);
  const each = [...labels].sort().map(([label, many]) => `${many} of “${label}”`);
  const some = `You have ${pictures.length} picture${pictures.length === 1 ? "" : "s"}: ${each.join(", ")}.`;
  const own = pictures.length > 0 ? some : "You have no pictures yet.";
  say("summary", source() === "examples" ? "" : own);
  show("forget-pictures", pictures.length > 0 && source() !== "examples");
  byId<HTMLButtonElement>("join").disabled = !token() || (source() !== "examples" && pictures.length === 0);
}

function add(more: Picture[]): void {
  pictures.push(...more);
  drawSummary();
}

function drawSource(): void {
  for (const each of SOURCES) show(`panel-${each}`, source() === each);
  if (source() !== "camera") stopCamera();
  drawSummary();
}

/** Offered where the gateway has them for this token; then they are what is chosen at first. */
async function offerExamples(): Promise<void> {
  const offered = await hasExamples(token());
  show("offer-examples", offered);
  const chosen = byId<HTMLInputElement>("source-examples");
  if (offered && pictures.length === 0) chosen.checked = true;
  if (!offered && chosen.checked) byId<HTMLInputElement>("source-draw").checked = true;
  drawSource();
}

async function join(): Promise<void> {
  try {
    const data = source() === "examples" ? await examples(token()) : mixed(pictures);
    // A private window may have no database: then a reload begins anew.
    const shares = byId<HTMLInputElement>("share-labels").checked;
    await Promise.all([keep("data", data), keep("token", token()), keep("shares", shares)]).catch(() => {});
    await begin(token(), data, shares);
  } catch (error) {
    say("problem", (error as Error).message);
  }
}

async function begin(own: string, data: Data, shares: boolean): Promise<void> {
  stopCamera();
  const backend = await chooseBackend(new URLSearchParams(location.search).get("backend"));
  show("setup", false);
  byId<HTMLDetailsElement>("about").open = false; // the progress comes first now
  show("progress", true);
  say("backend", backend);
  say("samples", String(count(data)));
  session = new Session(own, data, new Progress(), shares);
  session.start();
  byId("who").focus();
}

async function leave(): Promise<void> {
  session?.leave();
  byId<HTMLInputElement>("token").value = "";
  history.replaceState(null, "", location.pathname + location.search); // its token, too
  show("leave", false);
  show("leaving", false);
  show("again", true);
  await forgetAll().catch(() => {});
}

function listen(): void {
  byId("token").addEventListener("change", () => void offerExamples());
  byId("token").addEventListener("input", drawSummary);
  byId("sources").addEventListener("change", drawSource);
  byId("setup").addEventListener("submit", (event) => {
    event.preventDefault();
    void join();
  });
  byId("leave").addEventListener("click", () => void leave());
  byId("again").addEventListener("click", () => location.reload());
  byId("forget-pictures").addEventListener("click", () => {
    pictures.length = 0;
    drawSummary();
  });
}

async function main(): Promise<void> {
  const invited = location.hash.slice(1); // as `ray-split devices invite` writes it
  const before = [kept<string>("token"), kept<Data>("data"), kept<boolean>("shares")] as const;
  const [own, data, shares] = await Promise.all(before).catch(() => []);
  byId<HTMLInputElement>("token").value = invited || own || "";
  listen();
  letDrawDigits((picture) => add([picture]));
  show("folders", "webkitdirectory" in byId("folder")); // some telephones can't choose a folder
  letChoose("folder", "files-label", "files-hint", add);
  letChoose("files", "files-label", "files-hint", add);
  letPhotograph(add);
  // A reload goes on; another invitation begins anew.
  if (own && data && (!invited || invited === own)) return begin(own, data, shares === true);
  await offerExamples();
}

void main().catch((error: Error) => say("problem", error.message));
