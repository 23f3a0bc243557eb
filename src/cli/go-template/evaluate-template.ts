import { TemplateError, type Expression, type Pipeline, type TemplateNode } from './syntax.ts';
import { TEMPLATE_FUNCTIONS, type TemplateFunction } from './template-functions.ts';
import { isTrue, printValue, sortedEntries } from './template-values.ts';

/**
 * Members that are maps in Docker's Go types. JSON does not tell a map from a struct, and Go treats a missing key differently: nothing in a map,
 * an error in a struct (where it is a typing mistake of the user).
 */
const MAP_MEMBERS = new Set([
  'Labels',
  'Options',
  'Networks',
  'Ports',
  'PortBindings',
  'ExposedPorts',
  'Volumes',
  'Sysctls',
  'Tmpfs',
  'Annotations',
  'Config',
  'Data',
  'Containers',
  'Attributes',
  'DriverOpts',
  'Details',
  'Runtimes',
]);

interface Scope {
  readonly dot: unknown;
  readonly variables: Map<string, unknown>;
  /** Where variables are looked for next. */
  readonly outer: Scope | undefined;
  readonly functions: Readonly<Record<string, TemplateFunction>>;
}

/**
 * Applies a template to data. A member that is a JS function is a method: `.Label "x"` calls it. Throws `TemplateError`.
 * @param functions in place of the usual ones of that name
 */
export function evaluateTemplate(
  nodes: readonly TemplateNode[],
  data: unknown,
  functions: Readonly<Record<string, TemplateFunction>> = {},
): string {
  return renderNodes(nodes, {
    dot: data,
    variables: new Map([['', data]]),
    outer: undefined,
    functions: { ...TEMPLATE_FUNCTIONS, ...functions },
  });
}

function renderNodes(nodes: readonly TemplateNode[], scope: Scope): string {
  return nodes.map((node) => renderNode(node, scope)).join('');
}

function renderNode(node: TemplateNode, scope: Scope): string {
  switch (node.kind) {
    case 'text':
      return node.text;
    case 'print': {
      const value = runPipeline(node.pipeline, scope);
      return node.pipeline.variables.length > 0 ? '' : printValue(value);
    }
    case 'if': {
      const inner = nested(scope, scope.dot);
      return isTrue(runPipeline(node.pipeline, inner))
        ? renderNodes(node.body, inner)
        : renderNodes(node.otherwise, inner);
    }
    case 'with': {
      const inner = nested(scope, scope.dot);
      const value = runPipeline(node.pipeline, inner);
      return isTrue(value) ? renderNodes(node.body, { ...inner, dot: value }) : renderNodes(node.otherwise, inner);
    }
    case 'range':
      return renderRange(node, scope);
  }
}

function renderRange(node: TemplateNode & { kind: 'range' }, scope: Scope): string {
  const value = runPipeline({ ...node.pipeline, variables: [] }, scope);
  const entries = entriesOf(value);
  if (entries.length === 0) return renderNodes(node.otherwise, nested(scope, scope.dot));
  const { variables } = node.pipeline;
  return entries
    .map(([key, element]) => {
      const inner = nested(scope, element);
      const last = variables.at(-1);
      if (last !== undefined) inner.variables.set(last, element);
      if (variables.length === 2 && variables[0] !== undefined) inner.variables.set(variables[0], key);
      return renderNodes(node.body, inner);
    })
    .join('');
}

function entriesOf(value: unknown): [string | number, unknown][] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value.map((element, index) => [index, element]);
  if (typeof value === 'object') return sortedEntries(value).filter(([, member]) => typeof member !== 'function');
  if (typeof value === 'number' && Number.isInteger(value))
    return Array.from({ length: Math.min(Math.max(value, 0), 1_000_000) }, (_, index) => [index, index]);
  throw new TemplateError(`range can't iterate over ${printValue(value)}`);
}

function nested(scope: Scope, dot: unknown): Scope {
  return { dot, variables: new Map(), outer: scope, functions: scope.functions };
}

function runPipeline(pipeline: Pipeline, scope: Scope): unknown {
  let value: unknown;
  for (const [index, stage] of pipeline.stages.entries()) value = runCommand(stage, scope, index === 0 ? [] : [value]);
  for (const name of pipeline.variables) {
    const owner = pipeline.assigns ? findOwner(scope, name) : scope;
    owner.variables.set(name, value);
  }
  return value;
}

/** The innermost scope that has the variable. */
function findOwner(scope: Scope, name: string): Scope {
  for (let current: Scope | undefined = scope; current !== undefined; current = current.outer)
    if (current.variables.has(name)) return current;
  throw new TemplateError(`template: :1: undefined variable "$${name}"`);
}

function runCommand(operands: readonly Expression[], scope: Scope, piped: readonly unknown[]): unknown {
  const [head, ...rest] = operands;
  if (head === undefined) throw new TemplateError('template: :1: missing value for command');
  const given = [...rest.map((operand) => valueOf(operand, scope, [])), ...piped];
  if (head.kind === 'call') return scope.functions[head.name]?.(...given);
  return valueOf(head, scope, given);
}

function valueOf(expression: Expression, scope: Scope, given: readonly unknown[]): unknown {
  switch (expression.kind) {
    case 'literal':
    case 'dot': {
      if (given.length > 0)
        throw new TemplateError(
          `can't give argument to non-function ${expression.kind === 'dot' ? '.' : JSON.stringify(expression.value)}`,
        );
      return expression.kind === 'dot' ? scope.dot : expression.value;
    }
    case 'call':
      return scope.functions[expression.name]?.(...given);
    case 'field':
      return followFields(scope.dot, expression.fields, given, '');
    case 'variable':
      return followFields(
        findOwner(scope, expression.name).variables.get(expression.name),
        expression.fields,
        given,
        `$${expression.name}`,
      );
    case 'group':
      return followFields(runPipeline(expression.pipeline, scope), expression.fields, given, '');
  }
}

function followFields(start: unknown, fields: readonly string[], given: readonly unknown[], prefix: string): unknown {
  let value = start;
  let parent = '';
  for (const [index, field] of fields.entries()) {
    const place = `${prefix}.${fields.slice(0, index + 1).join('.')}`;
    if (value === undefined || value === null) {
      if (index === 0 && MAP_MEMBERS.has(parent)) return undefined;
      throw new TemplateError(
        `template: :1:2: executing "" at <${place}>: nil data; no entry for key ${JSON.stringify(field)}`,
      );
    }
    if (typeof value !== 'object' || Array.isArray(value)) {
      throw new TemplateError(
        `template: :1:2: executing "" at <${place}>: can't evaluate field ${field} in type ${Array.isArray(value) ? '[]interface {}' : typeof value}`,
      );
    }
    const map = value as Record<string, unknown>;
    if (!Object.hasOwn(map, field)) {
      if (MAP_MEMBERS.has(parent)) return undefined;
      throw new TemplateError(
        `template: :1:2: executing "" at <${place}>: map has no entry for key ${JSON.stringify(field)}`,
      );
    }
    value = map[field];
    if (typeof value === 'function')
      value = (value as (...values: unknown[]) => unknown)(...(index === fields.length - 1 ? given : []));
    parent = field;
  }
  return value;
}
