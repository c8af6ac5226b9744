// Numbers by chance that follow from a seed, so that a layer that is computed twice in a step drops the same.

/** A seed of its own for each layer, from the step's (which may be beyond 2^53) and the layer's name. */
export function seedFor(step: number, layer: string): number {
  let hash = 2166136261;
  for (const letter of `${step}/${layer}`) hash = Math.imul(hash ^ letter.codePointAt(0)!, 16777619);
  return hash >>> 0;
}

/** mulberry32: numbers from 0 to 1. */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** The same things in an order by chance. */
export function shuffled<T>(things: readonly T[], seed: number): T[] {
  const next = random(seed);
  const order = [...things];
  for (let last = order.length - 1; last > 0; last -= 1) {
    const other = Math.floor(next() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}
