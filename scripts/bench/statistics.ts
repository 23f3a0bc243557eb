export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly p95: number;
}

/** Of the values below and above the wanted rank, the one in between. */
function quantile(sorted: readonly number[], fraction: number): number {
  const rank = (sorted.length - 1) * fraction;
  const below = sorted[Math.floor(rank)] ?? Number.NaN;
  const above = sorted[Math.ceil(rank)] ?? below;
  return below + (above - below) * (rank - Math.floor(rank));
}

export function median(values: readonly number[]): number {
  return quantile(
    values.toSorted((first, second) => first - second),
    0.5,
  );
}

export function summarize(values: readonly number[]): Summary {
  const sorted = values.toSorted((first, second) => first - second);
  return {
    median: quantile(sorted, 0.5),
    min: quantile(sorted, 0),
    max: quantile(sorted, 1),
    p95: quantile(sorted, 0.95),
  };
}
