// Drawing digits: one finger, one pen, and a button for each digit that says what was drawn.
import { byId, made, say } from "./dom";
import { fromCanvas, LARGEST_SIDE, type Picture } from "./pictures";

const MARGIN = 6;

type Corners = [left: number, top: number, right: number, bottom: number];

/** Of what was drawn; null if nothing was. */
function ink(canvas: HTMLCanvasElement): Corners | null {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d", { willReadFrequently: true })!.getImageData(0, 0, width, height);
  let corners: Corners | null = null;
  for (let place = 0; place < width * height; place += 1) {
    if (data[4 * place] < 64) continue;
    const [x, y] = [place % width, Math.floor(place / width)];
    const [left, top, right, bottom]: Corners = corners ?? [x, y, x, y];
    corners = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
  }
  return corners;
}

/** As large as the digits that networks are trained on: it fills the picture but for a margin. */
function centred(canvas: HTMLCanvasElement, label: string): Picture | null {
  const corners = ink(canvas);
  if (!corners) return null;
  const [left, top, right, bottom] = corners;
  const size = Math.max(right - left, bottom - top) + 1;
  const [x, y] = [(left + right + 1 - size) / 2, (top + bottom + 1 - size) / 2];
  const small = made("canvas", { width: LARGEST_SIDE, height: LARGEST_SIDE });
  const brush = small.getContext("2d")!;
  brush.fillRect(0, 0, LARGEST_SIDE, LARGEST_SIDE);
  const inner = LARGEST_SIDE - 2 * MARGIN;
  brush.drawImage(canvas, x, y, size, size, MARGIN, MARGIN, inner, inner);
  return fromCanvas(small, label);
}

function clear(canvas: HTMLCanvasElement): void {
  const brush = canvas.getContext("2d")!;
  brush.fillStyle = "black";
  brush.fillRect(0, 0, canvas.width, canvas.height);
}

/** What draws on it. */
function brushOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const brush = canvas.getContext("2d", { willReadFrequently: true })!;
  return Object.assign(brush, { lineWidth: 22, lineCap: "round", lineJoin: "round", strokeStyle: "white" } as const);
}

function letDraw(canvas: HTMLCanvasElement): void {
  const brush = brushOf(canvas);
  const place = (event: PointerEvent): [number, number] => {
    const { left, top, width } = canvas.getBoundingClientRect();
    return [((event.clientX - left) * canvas.width) / width, ((event.clientY - top) * canvas.width) / width];
  };
  const draw = (event: PointerEvent) => {
    brush.lineTo(...place(event));
    brush.stroke();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    brush.beginPath();
    brush.moveTo(...place(event));
    draw(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons > 0) draw(event);
  });
}

const ARROWS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/** Draws with the arrows and the space bar; digits and Backspace do what the buttons do. */
function letType(canvas: HTMLCanvasElement, keepAs: (digit: string) => void, erase: () => void): void {
  const brush = brushOf(canvas);
  let [x, y, down] = [canvas.width / 2, canvas.height / 2, false];
  const told = () => {
    const place = [x / canvas.width, y / canvas.height].map((share) => `${Math.round(100 * share)}%`);
    say("pen", `pen ${down ? "down" : "up"}, ${place[0]} from the left, ${place[1]} from the top`);
  };
  const to = (left: number, top: number) => {
    if (down) {
      brush.beginPath();
      brush.moveTo(x, y);
      brush.lineTo(left, top);
      brush.stroke();
    }
    [x, y] = [left, top];
  };
  const move = ([right, below]: [number, number], step: number) => {
    const within = (place: number, most: number) => Math.min(most, Math.max(0, place));
    to(within(x + right * step, canvas.width), within(y + below * step, canvas.height));
  };
  const lift = () => {
    down = !down;
    to(x, y);
  };
  const restart = (act: () => void) => {
    act();
    [x, y, down] = [canvas.width / 2, canvas.height / 2, false];
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) move(ARROWS[event.key], event.shiftKey ? 5 : 20);
    else if (event.key === " ") lift();
    else if (/^[0-9]$/.test(event.key)) restart(() => keepAs(event.key));
    else if (event.key === "Backspace") restart(erase);
    else return;
    event.preventDefault(); // the page would scroll
    told();
  });
  canvas.addEventListener("focus", told);
}

/** add: is given each digit that was drawn. */
export function letDrawDigits(add: (picture: Picture) => void): void {
  const canvas = byId<HTMLCanvasElement>("canvas");
  clear(canvas);
  letDraw(canvas);
  const keepAs = (digit: string) => {
    const picture = centred(canvas, digit);
    say("draw-hint", picture ? `Kept as a ${digit}. Draw the next.` : "Draw a digit first.");
    if (picture) add(picture);
    clear(canvas);
  };
  letType(canvas, keepAs, () => clear(canvas));
  const buttons = Array.from({ length: 10 }, (_, digit) => {
    const button = made("button", { type: "button", textContent: String(digit), ariaLabel: `It is a ${digit}` });
    button.addEventListener("click", () => keepAs(String(digit)));
    return button;
  });
  byId("digits").append(...buttons);
  byId("clear").addEventListener("click", () => clear(canvas));
}
