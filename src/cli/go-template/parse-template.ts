import { lexTemplate, type Token, type Word } from './lex-template.ts';
import { TemplateError, type Expression, type Pipeline, type TemplateNode } from './syntax.ts';
import { TEMPLATE_FUNCTIONS } from './template-functions.ts';

/** Reads a template; throws `TemplateError`. */
export function parseTemplate(source: string): readonly TemplateNode[] {
  const parser = new TemplateParser(lexTemplate(source));
  const { nodes, ending } = parser.readBlock();
  if (ending !== undefined) throw new TemplateError(`template: :1: unexpected {{${ending.keyword}}}`);
  return nodes;
}

interface BlockEnding {
  readonly keyword: 'end' | 'else';
  /** What follows `else`. */
  readonly words: readonly Word[];
}

class TemplateParser {
  readonly #tokens: readonly Token[];
  #position = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  readBlock(): { nodes: TemplateNode[]; ending: BlockEnding | undefined } {
    const nodes: TemplateNode[] = [];
    for (;;) {
      const token = this.#tokens[this.#position];
      if (token === undefined) return { nodes, ending: undefined };
      this.#position += 1;
      if (token.kind === 'text') {
        nodes.push(token);
        continue;
      }
      const [first, ...rest] = token.words;
      const keyword = first?.kind === 'identifier' ? first.text : '';
      if (keyword === 'end' || keyword === 'else') return { nodes, ending: { keyword, words: rest } };
      if (keyword === 'if' || keyword === 'with' || keyword === 'range') nodes.push(this.#readControl(keyword, rest));
      else if (['define', 'template', 'block', 'break', 'continue'].includes(keyword))
        throw new TemplateError(`template: :1: {{${keyword}}} is not supported here`);
      else nodes.push({ kind: 'print', pipeline: parsePipeline(token.words) });
    }
  }

  #readControl(kind: 'if' | 'with' | 'range', words: readonly Word[]): TemplateNode {
    if (words.length === 0) throw new TemplateError(`template: :1: missing value for ${kind}`);
    const pipeline = parsePipeline(words);
    const { nodes: body, ending } = this.readBlock();
    let otherwise: readonly TemplateNode[] = [];
    if (ending === undefined) throw new TemplateError('template: :1: unexpected EOF');
    if (ending.keyword === 'else') {
      const [next, ...rest] = ending.words;
      if (next?.kind === 'identifier' && (next.text === 'if' || next.text === 'with'))
        otherwise = [this.#readControl(next.text, rest)];
      else {
        const block = this.readBlock();
        if (block.ending?.keyword !== 'end') throw new TemplateError('template: :1: unexpected EOF');
        otherwise = block.nodes;
      }
    }
    return { kind, pipeline, body, otherwise };
  }
}

function parsePipeline(words: readonly Word[]): Pipeline {
  if (words.length === 0) throw new TemplateError('template: :1: missing value for command');
  const operator = words.findIndex((word) => word.kind === 'symbol' && (word.text === ':=' || word.text === '='));
  const declared = operator === -1 ? [] : words.slice(0, operator);
  const variables = declared.flatMap((word) => (word.kind === 'variable' ? [word.text] : []));
  const commas = declared.filter((word) => word.kind === 'symbol' && word.text === ',').length;
  if (variables.length + commas !== declared.length || variables.length > 2)
    throw new TemplateError('template: :1: unexpected ":=" in operand');
  const reader = new ExpressionReader(words.slice(operator + 1));
  const stages = reader.readStages();
  reader.expectEnd();
  return {
    variables,
    assigns: operator !== -1 && words[operator]?.kind === 'symbol' && words[operator].text === '=',
    stages,
  };
}

class ExpressionReader {
  readonly #words: readonly Word[];
  #position = 0;

  constructor(words: readonly Word[]) {
    this.#words = words;
  }

  readStages(): Expression[][] {
    const stages = [this.#readCommand()];
    while (this.#takeSymbol('|')) stages.push(this.#readCommand());
    return stages;
  }

  expectEnd(): void {
    const word = this.#words[this.#position];
    if (word !== undefined)
      throw new TemplateError(
        `template: :1: unexpected ${JSON.stringify('text' in word ? word.text : word.value)} in operand`,
      );
  }

  #readCommand(): Expression[] {
    const operands: Expression[] = [];
    for (;;) {
      const operand = this.#readOperand();
      if (operand === undefined) break;
      operands.push(operand);
    }
    if (operands.length === 0) throw new TemplateError('template: :1: missing value for command');
    return operands;
  }

  #readOperand(): Expression | undefined {
    const word = this.#words[this.#position];
    if (word === undefined) return undefined;
    switch (word.kind) {
      case 'string':
        this.#position += 1;
        return { kind: 'literal', value: word.text };
      case 'number':
        this.#position += 1;
        return { kind: 'literal', value: word.value };
      case 'variable':
        this.#position += 1;
        return { kind: 'variable', name: word.text, fields: this.#readFields() };
      case 'field': {
        this.#position += 1;
        if (word.text === '') return { kind: 'dot' };
        return { kind: 'field', fields: [word.text, ...this.#readFields()] };
      }
      case 'identifier':
        this.#position += 1;
        return identifier(word.text);
      case 'symbol':
        return this.#readGroup();
    }
  }

  #readGroup(): Expression | undefined {
    if (!this.#takeSymbol('(')) return undefined;
    const stages = this.readStages();
    if (!this.#takeSymbol(')')) throw new TemplateError('template: :1: unclosed left paren');
    return { kind: 'group', pipeline: { variables: [], assigns: false, stages }, fields: this.#readFields() };
  }

  /** `.A.B` right behind something, without a blank. */
  #readFields(): string[] {
    const fields: string[] = [];
    for (;;) {
      const word = this.#words[this.#position];
      if (word?.kind !== 'field' || word.spaceBefore || word.text === '') return fields;
      fields.push(word.text);
      this.#position += 1;
    }
  }

  #takeSymbol(text: string): boolean {
    const word = this.#words[this.#position];
    if (word?.kind !== 'symbol' || word.text !== text) return false;
    this.#position += 1;
    return true;
  }
}

function identifier(name: string): Expression {
  if (name === 'true' || name === 'false') return { kind: 'literal', value: name === 'true' };
  if (name === 'nil') return { kind: 'literal', value: null };
  if (!Object.hasOwn(TEMPLATE_FUNCTIONS, name))
    throw new TemplateError(`template: :1: function ${JSON.stringify(name)} not defined`);
  return { kind: 'call', name };
}
