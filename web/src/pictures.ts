// Pictures as bytes: kept square and small, and made what the run's model takes when that is known.

/** Square, three bytes a pixel: red, green, blue. */
export interface Picture {
  side: number;
  pixels: Uint8Array;
  label: string;
}

export const LARGEST_SIDE = 64;

/** How much of each of `from` pixels is in each of `to`, along one side: [pixel, share] pairs. */
function shares(from: number, to: number): [number, number][][] {
  return Array.from({ length: to }, (_, place) => {
    const [start, end] = [(place * from) / to, ((place + 1) * from) / to];
    const found: [number, number][] = [];
    for (let pixel = Math.floor(start); pixel < Math.min(from, Math.ceil(end)); pixel += 1) {
      found.push([pixel, (Math.min(end, pixel + 1) - Math.max(start, pixel)) / (end - start)]);
    }
    return found;
  });
}

/** One channel, (height, width): each pixel the mean of what it covers. */
export function resized(plane: Float32Array, side: number, height: number, width: number): Float32Array {
  const [down, across] = [shares(side, height), shares(side, width)];
  const found = new Float32Array(height * width);
  down.forEach((rows, y) => {
    across.forEach((columns, x) => {
      for (const [row, high] of rows) for (const [column, wide] of columns) {
        found[y * width + x] += plane[row * side + column] * high * wide;
      }
    });
  });
  return found;
}

/** The picture's colours, or its brightness if there is one channel. */
function planes({ pixels, side }: Picture, channels: number): Float32Array[] {
  const plane = (of: (red: number, green: number, blue: number) => number) => {
    return Float32Array.from({ length: side * side }, (_, place) => {
      return of(pixels[3 * place], pixels[3 * place + 1], pixels[3 * place + 2]);
    });
  };
  if (channels === 1) return [plane((red, green, blue) => 0.299 * red + 0.587 * green + 0.114 * blue)];
  return [plane((red) => red), plane((_, green) => green), plane((_, __, blue) => blue)];
}

/** Whether a model whose samples have this shape can be given pictures. */
export function takesPictures(shape: number[]): boolean {
  return shape.length === 3 && (shape[0] === 1 || shape[0] === 3);
}

/** (channels, height, width), bytes from 0 to `highest`. */
export function toInput(picture: Picture, [channels, height, width]: number[], highest: number): Uint8Array {
  const found = planes(picture, channels).map((plane) => resized(plane, picture.side, height, width));
  const bytes = new Uint8Array(channels * height * width);
  found.forEach((plane, channel) => {
    bytes.set(plane.map((value) => Math.round((value * highest) / 255)), channel * height * width);
  });
  return bytes;
}

/** What a canvas shows, without its opacity. */
export function fromCanvas(canvas: HTMLCanvasElement, label: string): Picture {
  const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
  return { side: canvas.width, pixels: data.filter((_, index) => index % 4 !== 3) as unknown as Uint8Array, label };
}

/** The middle square of an image or a video, at most 64 pixels wide. */
export function fromImage(image: CanvasImageSource, width: number, height: number, label: string): Picture {
  const square = Math.min(width, height);
  const side = Math.min(LARGEST_SIDE, square);
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const brush = canvas.getContext("2d")!;
  brush.imageSmoothingQuality = "high";
  brush.drawImage(image, (width - square) / 2, (height - square) / 2, square, square, 0, 0, side, side);
  return fromCanvas(canvas, label);
}
