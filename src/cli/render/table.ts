/** Least width of a column and the blanks after it, as Docker's tables have them (characters). */
const MIN_WIDTH = 10;
const PADDING = 3;

/** Lays out lines whose cells are parted by tabs, as Go's tabwriter does for Docker. The last cell of a line is not padded. */
export function alignTable(lines: readonly string[], minWidth = MIN_WIDTH, padding = PADDING): string {
  const rows = lines.map((line) => line.split('\t'));
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.slice(0, -1).entries()) {
      widths[column] = Math.max(widths[column] ?? minWidth, displayWidth(cell) + padding);
    }
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          column === row.length - 1 ? cell : cell + ' '.repeat((widths[column] ?? 0) - displayWidth(cell)),
        )
        .join(''),
    )
    .join('\n');
}

/** Go's tabwriter counts code points. */
function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) if (character !== '') width += 1;
  return width;
}
