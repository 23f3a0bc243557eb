import { formatPrintf } from './printf.ts';
import { TemplateError } from './syntax.ts';
import { isTrue, printValue, toJson } from './template-values.ts';

export type TemplateFunction = (...values: unknown[]) => unknown;

/** Docker's own functions and those of Go that make sense on JSON. */
export const TEMPLATE_FUNCTIONS: Readonly<Record<string, TemplateFunction>> = {
  json: (value) => toJson(value),
  join: (list, separator) => asList(list, 'join').map(printValue).join(asText(separator)),
  split: (text, separator) => asText(text).split(asText(separator)),
  lower: (text) => asText(text).toLowerCase(),
  upper: (text) => asText(text).toUpperCase(),
  title: (text) => asText(text).replace(/(^|\s)\p{L}/gu, (letter) => letter.toUpperCase()),
  pad: (text, before, after) =>
    asText(text) === '' ? '' : ' '.repeat(Number(before)) + asText(text) + ' '.repeat(Number(after)),
  truncate: (text, length) => asText(text).slice(0, Number(length)),
  print: (...values) => printAll(values),
  println: (...values) => `${values.map(printValue).join(' ')}\n`,
  printf: (format, ...values) => formatPrintf(asText(format), values),
  len: (value) => lengthOf(value),
  index: (value, ...keys) => keys.reduce(indexInto, value),
  slice: (value, from, to) =>
    (typeof value === 'string' ? value : asList(value, 'slice')).slice(
      Number(from ?? 0),
      to === undefined ? undefined : Number(to),
    ),
  eq: (first, ...others) => others.some((other) => areEqual(first, other)),
  ne: (left, right) => !areEqual(left, right),
  lt: (left, right) => compare(left, right) < 0,
  le: (left, right) => compare(left, right) <= 0,
  gt: (left, right) => compare(left, right) > 0,
  ge: (left, right) => compare(left, right) >= 0,
  and: (...values) => values.find((value) => !isTrue(value)) ?? values.at(-1),
  or: (...values) => values.find(isTrue) ?? values.at(-1),
  not: (value) => !isTrue(value),
  html: (value) => printValue(value).replace(/[&<>'"]/g, (character) => `&#${character.charCodeAt(0)};`),
  urlquery: (value) => encodeURIComponent(printValue(value)).replaceAll('%20', '+'),
};

function asText(value: unknown): string {
  return typeof value === 'string' ? value : printValue(value);
}

function asList(value: unknown, name: string): unknown[] {
  if (value === null || value === undefined) return [];
  if (!Array.isArray(value))
    throw new TemplateError(`error calling ${name}: expected a list, got ${printValue(value)}`);
  return value;
}

function lengthOf(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (Array.isArray(value)) return value.length;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length;
  if (value === null) return 0;
  throw new TemplateError(`error calling len: len of type ${typeof value}`);
}

function indexInto(value: unknown, key: unknown): unknown {
  if (Array.isArray(value)) {
    const position = Number(key);
    if (!Number.isInteger(position) || position < 0 || position >= value.length)
      throw new TemplateError(`error calling index: reflect: slice index out of range`);
    return value[position];
  }
  if (value === null || value === undefined) throw new TemplateError('error calling index: index of untyped nil');
  if (typeof value !== 'object')
    throw new TemplateError(`error calling index: can't index item of type ${typeof value}`);
  const map = value as Record<string, unknown>;
  const name = asText(key);
  if (Object.hasOwn(map, name)) return map[name];
  // A map of strings answers with the empty string, as in Go; of others there is no zero value to be had from JSON.
  return Object.values(map).every((member) => typeof member === 'string') ? '' : undefined;
}

function areEqual(left: unknown, right: unknown): boolean {
  if (typeof left !== typeof right && left !== null && right !== null) {
    throw new TemplateError('error calling eq: incompatible types for comparison');
  }
  return left === right;
}

function compare(left: unknown, right: unknown): number {
  if (typeof left === 'number' && typeof right === 'number') return left - right;
  if (typeof left === 'string' && typeof right === 'string') return left < right ? -1 : left > right ? 1 : 0;
  throw new TemplateError('error calling lt: incompatible types for comparison');
}

/** Blanks stand between operands when neither is a string. */
function printAll(values: readonly unknown[]): string {
  return values
    .map(
      (value, index) =>
        (index > 0 && typeof value !== 'string' && typeof values[index - 1] !== 'string' ? ' ' : '') +
        printValue(value),
    )
    .join('');
}
