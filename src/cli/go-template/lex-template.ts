import { TemplateError } from './syntax.ts';

export type Token =
  { readonly kind: 'text'; readonly text: string } | { readonly kind: 'action'; readonly words: readonly Word[] };

export type Word =
  | { readonly kind: 'string' | 'identifier' | 'variable'; readonly text: string; readonly spaceBefore: boolean }
  | { readonly kind: 'number'; readonly value: number; readonly spaceBefore: boolean }
  /** `.Name`; the lone dot is the empty name. */
  | { readonly kind: 'field'; readonly text: string; readonly spaceBefore: boolean }
  | { readonly kind: 'symbol'; readonly text: string; readonly spaceBefore: boolean };

/** Text and actions of a template; `{{-` and `-}}` have already taken the white space beside them. */
export function lexTemplate(source: string): Token[] {
  const tokens: Token[] = [];
  let position = 0;
  let trimsNext = false;
  for (;;) {
    const open = source.indexOf('{{', position);
    let text = source.slice(position, open === -1 ? undefined : open);
    if (trimsNext) text = text.replace(/^[ \t\r\n]+/, '');
    const trimsThis = open !== -1 && /^-[ \t\r\n]/.test(source.slice(open + 2, open + 4));
    if (trimsThis) text = text.replace(/[ \t\r\n]+$/, '');
    if (text !== '') tokens.push({ kind: 'text', text });
    if (open === -1) return tokens;
    const line = source.slice(0, open).split('\n').length;
    const start = open + 2 + (trimsThis ? 2 : 0);
    const close = findClose(source, start, line);
    trimsNext = /[ \t\r\n]-$/.test(source.slice(start, close)) || source.slice(start - 1, close) === ' -';
    const body = trimsNext ? source.slice(start, close - 1) : source.slice(start, close);
    if (!/^\s*\/\*[^]*\*\/\s*$/.test(body)) tokens.push({ kind: 'action', words: lexAction(body, line) });
    position = close + 2;
  }
}

/** The `}}` that ends an action: not one within quotes. */
function findClose(source: string, start: number, line: number): number {
  let quote = '';
  for (let index = start; index < source.length; index += 1) {
    const character = source.charAt(index);
    if (quote !== '') {
      if (character === '\\' && quote === '"') index += 1;
      else if (character === quote) quote = '';
    } else if (character === '"' || character === '`') quote = character;
    else if (source.startsWith('}}', index)) return index;
  }
  if (quote === '"') throw new TemplateError(`template: :${line}: unterminated quoted string`);
  throw new TemplateError(`template: :${line}: unclosed action`);
}

const WORD_PATTERN =
  /(?<space>\s*)(?:(?<string>"(?:[^"\\\n]|\\.)*")|`(?<raw>[^`]*)`|(?<number>[+-]?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?))|(?<variable>\$\w*)|\.(?<field>[\p{L}_][\p{L}\p{N}_]*|)|(?<identifier>[\p{L}_][\p{L}\p{N}_]*)|(?<symbol>:=|[=|(),]))/uy;

function lexAction(body: string, line: number): Word[] {
  const words: Word[] = [];
  WORD_PATTERN.lastIndex = 0;
  while (WORD_PATTERN.lastIndex < body.length) {
    const start = WORD_PATTERN.lastIndex;
    const groups = WORD_PATTERN.exec(body)?.groups;
    if (groups === undefined) {
      if (body.slice(start).trim() === '') break;
      throw new TemplateError(
        `template: :${line}: unexpected ${JSON.stringify(body.slice(start).trim().charAt(0))} in command`,
      );
    }
    const spaceBefore = groups['space'] !== '';
    if (groups['string'] !== undefined)
      words.push({ kind: 'string', text: unquote(groups['string'], line), spaceBefore });
    else if (groups['raw'] !== undefined) words.push({ kind: 'string', text: groups['raw'], spaceBefore });
    else if (groups['number'] !== undefined)
      words.push({ kind: 'number', value: Number(groups['number']), spaceBefore });
    else if (groups['variable'] !== undefined)
      words.push({ kind: 'variable', text: groups['variable'].slice(1), spaceBefore });
    else if (groups['field'] !== undefined) words.push({ kind: 'field', text: groups['field'], spaceBefore });
    else if (groups['identifier'] !== undefined)
      words.push({ kind: 'identifier', text: groups['identifier'], spaceBefore });
    else words.push({ kind: 'symbol', text: groups['symbol'] ?? '', spaceBefore });
  }
  return words;
}

function unquote(text: string, line: number): string {
  try {
    const json = text
      .replace(/\\x([0-9a-fA-F]{2})/g, '\\u00$1')
      .replace(/\\a/g, '\\u0007')
      .replace(/\\v/g, '\\u000b')
      .replaceAll('\t', '\\t');
    return JSON.parse(json) as string;
  } catch {
    throw new TemplateError(`template: :${line}: invalid syntax in string ${text}`);
  }
}
