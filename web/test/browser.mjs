// Takes part as a person would: opens the invitation, chooses the examples, joins, reloads once, looks on.
// node browser.mjs URL BACKEND FOLDER [own|leave|stay]: URL is the gateway's, or a whole invitation; pictures of the page, and what it asked for, into FOLDER.
// own: it takes part with a digit drawn by keyboard, a file and the camera's picture, and tells how many of each. leave: it leaves while it trains. stay: it doesn't reload, and waits for a gateway that isn't there yet.
import { writeFileSync } from "node:fs";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [url, backend, folder, how] = process.argv.slice(2);
const token = "a-token-for-tests"; // the mock gateway's
const software = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"];
const quiet = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"];
const camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
const args = [...quiet, ...camera, "--disable-component-update", "--disable-sync", ...(backend === "cpu" ? ["--disable-gpu"] : software)];
const SIZES = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 800 } };

const profile = mkdtempSync(join(tmpdir(), "ray-split-browser-"));
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const browser = await chromium.launchPersistentContext(profile, { executablePath, headless: true, args });
const page = await browser.newPage();
const asked = [];
const complaints = [];
page.on("request", (request) => asked.push(request.url()));
page.on("websocket", (socket) => asked.push(socket.url()));
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(error.message));

async function pictures(name) {
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ["light", "dark"]) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: join(folder, `${name}-${size}-${colorScheme}.png`), fullPage: true });
    }
  }
}

function doing(pattern, timeout = 300_000) {
  return page.locator("#doing").filter({ hasText: pattern }).waitFor({ timeout });
}

async function visit() {
  const invitation = new URL(url);
  invitation.searchParams.set("backend", backend);
  invitation.hash ||= token;
  for (let tries = how === "stay" ? 120 : 1; ; tries -= 1) {
    try {
      return await page.goto(invitation.href);
    } catch (error) {
      if (tries <= 1) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

/** The page is loaded anew in the second round. */
async function reload() {
  await doing(/^waiting for round 1/);
  await pictures("waiting");
  await doing(/^training, round 2 of 4/);
  await page.reload();
  await doing(/^training, round 3 of 4/);
  await pictures("training");
}

async function draw() {
  await page.getByRole("radio", { name: "Draw digits" }).check();
  const { x, y } = await page.locator("#canvas").boundingBox();
  await page.mouse.move(x + 150, y + 50);
  await page.mouse.down();
  await page.mouse.move(x + 130, y + 240, { steps: 8 });
  await page.mouse.up();
}

/** By the keyboard alone: a stroke downwards from the middle, wiped off once, then kept by a digit's key. */
async function type() {
  await page.getByRole("radio", { name: "Draw digits" }).check();
  await page.locator("#canvas").focus();
  const stroke = async () => {
    for (const key of ["ArrowUp", "ArrowUp", " ", "ArrowDown", "Shift+ArrowDown", "ArrowDown"]) await page.keyboard.press(key);
  };
  await stroke();
  await page.locator("#pen").filter({ hasText: "pen down, 50% from the left, 52% from the top" }).waitFor({ state: "attached" });
  await page.keyboard.press("Backspace");
  await page.keyboard.press("1");
  await page.getByText("Draw a digit first.").waitFor();
  await stroke();
}

/** A picture of the page itself, said to show a page; and one without a label, which is refused. */
async function choose() {
  const files = page.getByLabel("Choose pictures");
  await files.setInputFiles(join(folder, "examples-phone-light.png"));
  await page.getByText("Say what is on these pictures first").waitFor();
  await page.getByLabel("What is on them?").fill("page");
  await files.setInputFiles(join(folder, "examples-phone-light.png"));
  await page.getByText("1 picture kept.").waitFor();
}

async function photograph() {
  await page.getByLabel("What is on the picture?").fill("3");
  await page.getByRole("button", { name: "Start the camera" }).click();
  await page.getByRole("button", { name: "Take a picture" }).click();
  await page.getByText("You have 3 pictures: 1 of “1”, 1 of “3”, 1 of “page”.").waitFor();
  await pictures("photographed");
}

/** The run has no page: it is asked for. */
async function answer() {
  await page.getByLabel("Your “page” is the run's").selectOption("8");
  await pictures("asked");
  await page.getByRole("button", { name: "Go on" }).click();
}

/** Left, forgotten: the page begins anew, without a token. */
async function leave() {
  await doing(/^training/);
  await page.getByRole("button", { name: "Leave" }).click();
  await doing(/^left/, 2000);
  await pictures("left");
  await page.reload();
  await page.getByLabel("Token").waitFor();
  return (await page.getByLabel("Token").inputValue()) === "" && (await page.getByRole("button", { name: "Join" }).isDisabled());
}

try {
  await page.setViewportSize(SIZES.phone);
  await visit();
  await page.locator("#source-examples:checked").waitFor();
  await pictures("examples");
  await (how === "own" ? type() : draw());
  await pictures("draw-under-way");
  if (how === "own") await page.keyboard.press("1");
  else await page.getByRole("button", { name: "It is a 1" }).click();
  await page.getByText("You have 1 picture: 1 of “1”.").waitFor();
  await page.getByRole("radio", { name: "My pictures" }).check();
  if (how === "own") await choose();
  await pictures("files");
  await page.getByRole("radio", { name: "Camera" }).check();
  await pictures("camera");
  if (how !== "own") await page.getByRole("radio", { name: "The demo's examples" }).check();
  else await photograph();
  if (how === "own") await page.getByRole("checkbox", { name: "Tell the run's owner" }).check();
  await page.getByRole("button", { name: "Join" }).click();
  if (how === "own") await answer();
  const forgotten = how === "leave" ? await leave() : null;
  if (!how) await reload();
  if (how !== "leave") {
    await doing(/^(the run is over|finished)/, 500_000);
    await pictures("over");
  }
  const shown = Object.fromEntries(
    await page.locator("dl div").evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent))),
  );
  const scrolls = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  writeFileSync(join(folder, "browser.json"), JSON.stringify({ asked, complaints, shown, forgotten, scrolls }));
} catch (error) {
  await page.screenshot({ path: join(folder, "failed.png"), fullPage: true });
  console.error(complaints.join("\n"));
  throw error;
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
