export interface Series {
  readonly title: string;
  readonly values: readonly number[];
}

const WIDTH = 760;
const HEIGHT = 180;
const LEFT = 56;
const RIGHT = 16;
const TOP = 34;
const BOTTOM = 22;

/** One chart of points below the other, each from zero to a little above its largest value. No script, no font, no link. */
export function plotSvg(series: readonly Series[]): string {
  const charts = series.map((one, index) => `<g transform="translate(0 ${index * HEIGHT})">${chart(one)}</g>`);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT * series.length}" font-family="sans-serif" font-size="11">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    ...charts,
    '</svg>\n',
  ].join('\n');
}

function chart({ title, values }: Series): string {
  const top = niceAbove(Math.max(...values, 1));
  const [innerWidth, innerHeight] = [WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM];
  const x = (index: number): number => LEFT + (values.length < 2 ? 0 : (index / (values.length - 1)) * innerWidth);
  const y = (value: number): number => TOP + innerHeight * (1 - value / top);
  const lines = [0, top / 2, top].map(
    (value) =>
      `<path d="M${LEFT} ${y(value).toFixed(1)}H${WIDTH - RIGHT}" stroke="#ddd"/>` +
      `<text x="${LEFT - 6}" y="${(y(value) + 4).toFixed(1)}" text-anchor="end" fill="#555">${value}</text>`,
  );
  const points = values.map(
    (value, index) => `<circle cx="${x(index).toFixed(1)}" cy="${y(value).toFixed(1)}" r="1.6" fill="#1f6feb"/>`,
  );
  return (
    `<text x="${LEFT}" y="20" font-size="13" fill="#111">${title}</text>${lines.join('')}${points.join('')}` +
    `<text x="${WIDTH - RIGHT}" y="${HEIGHT - 6}" text-anchor="end" fill="#555">${values.length}</text>`
  );
}

/** The next of 1, 2 and 5 times a power of ten. */
function niceAbove(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((factor) => factor * power >= value) ?? 10) * power;
}
