// The camera. Browsers lend it to pages with TLS alone; elsewhere the telephone's own camera takes the picture.
import { byId, say, show } from "./dom";
import { letChoose } from "./files";
import { fromImage, type Picture } from "./pictures";

let stream: MediaStream | null = null;

export function stopCamera(): void {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
}

async function start(video: HTMLVideoElement): Promise<void> {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.srcObject = stream;
    await video.play();
    show("live", true);
    show("start-camera", false);
  } catch {
    say("camera-hint", "The camera can't be used: perhaps this page may not.");
  }
}

function take(video: HTMLVideoElement, add: (pictures: Picture[]) => void): void {
  const label = byId<HTMLInputElement>("camera-label").value.trim();
  if (!label) return say("camera-hint", "Say what is on the picture first: write a label above.");
  add([fromImage(video, video.videoWidth, video.videoHeight, label)]);
  say("camera-hint", `Kept as ${label}.`);
}

export function letPhotograph(add: (pictures: Picture[]) => void): void {
  const video = byId<HTMLVideoElement>("video");
  const lent = navigator.mediaDevices !== undefined;
  show("start-camera", lent);
  show("own-camera", !lent);
  byId("start-camera").addEventListener("click", () => void start(video));
  byId("take").addEventListener("click", () => take(video, add));
  letChoose("photo", "camera-label", "camera-hint", add);
}
