// A small line chart: how a number went, step by step.

const [WIDTH, HEIGHT] = [300, 90];
const POINTS = 150;
const SVG = "http://www.w3.org/2000/svg";

/** At most so many points: each is the mean of some steps. */
export function thinned(values: number[], points: number): number[] {
  const each = Math.max(1, Math.ceil(values.length / points));
  const groups = Array.from({ length: Math.ceil(values.length / each) }, (_, place) => {
    return values.slice(place * each, (place + 1) * each);
  });
  return groups.map((group) => group.reduce((sum, value) => sum + value, 0) / group.length);
}

export class Chart {
  private readonly line = document.createElementNS(SVG, "polyline");
  private readonly values: number[] = [];

  /** highest: of the scale; null for the highest value. */
  constructor(
    private readonly svg: Element,
    private readonly name: string,
    private readonly highest: number | null,
  ) {
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.append(this.line);
    this.draw();
  }

  add(value: number): void {
    if (Number.isFinite(value)) this.values.push(value);
    this.draw();
  }

  private draw(): void {
    const points = thinned(this.values, POINTS);
    const top = this.highest ?? Math.max(...points, 1e-9);
    const across = (place: number) => (points.length > 1 ? (place * WIDTH) / (points.length - 1) : 0);
    const places = points.map((value, place) => `${across(place).toFixed(1)},${(HEIGHT * (1 - value / top)).toFixed(1)}`);
    this.line.setAttribute("points", places.join(" "));
    const last = this.values[this.values.length - 1];
    const told = last === undefined ? "nothing yet" : `from ${this.values[0].toPrecision(2)} to ${last.toPrecision(2)}`;
    this.svg.setAttribute("aria-label", `${this.name}, ${told}`);
  }
}
