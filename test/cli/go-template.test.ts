import test from 'ava';
import { evaluateTemplate } from '../../src/cli/go-template/evaluate-template.ts';
import { parseTemplate } from '../../src/cli/go-template/parse-template.ts';
import { TemplateError } from '../../src/cli/go-template/syntax.ts';

const DATA = {
  Name: '/web',
  State: { Status: 'running', Running: true, Pid: 1234567890123 },
  Config: { Labels: { a: 'b', 'com.x/y': 'z' }, Env: ['A=1', 'B=2'], Cmd: null },
  Ports: { '80/tcp': [{ HostPort: '8080' }], '443/tcp': null },
  Label: (name: unknown) => (name === 'a' ? 'b' : ''),
};

function apply(source: string): string {
  return evaluateTemplate(parseTemplate(source), DATA);
}

const CASES: Record<string, string> = {
  '{{.Name}}': '/web',
  '{{ .State.Pid }}': '1234567890123',
  '{{json .Config.Labels}}': '{"a":"b","com.x/y":"z"}',
  '{{.Config.Env}} {{.Config.Labels}} {{.Config.Cmd}}': '[A=1 B=2] map[a:b com.x/y:z] <no value>',
  '{{index .Config.Labels "com.x/y"}}-{{index .Config.Labels "q"}}': 'z-',
  '{{(index (index .Ports "80/tcp") 0).HostPort}}': '8080',
  '{{range .Config.Env}}{{println .}}{{end}}': 'A=1\nB=2\n',
  '{{range $i, $e := .Config.Env}}{{$i}}={{$e}};{{end}}': '0=A=1;1=B=2;',
  '{{range $p, $c := .Ports}}{{$p}} {{end}}': '443/tcp 80/tcp ',
  '{{range .Config.Cmd}}x{{else}}none{{end}}': 'none',
  '{{if eq .State.Status "exited" "running"}}up{{else}}down{{end}}': 'up',
  '{{if .Config.Cmd}}a{{else if .State.Running}}b{{else}}c{{end}}': 'b',
  '{{with .State}}{{.Status}}/{{$.Name}}{{end}}': 'running//web',
  '{{with $x := .Name}}{{$x | upper | printf "%s!"}}{{end}}': '/WEB!',
  '{{join .Config.Env ","}} {{len .Config.Env}} {{lower "AbC"}} {{title "ab cd"}}': 'A=1,B=2 2 abc Ab Cd',
  '{{split "a:b" ":"}} {{slice "abcdef" 1 3}} {{truncate "abcdef" 2}} [{{pad "x" 1 2}}]': '[a b] bc ab [ x  ]',
  '{{printf "%-6s|%04d|%q|%.2f|%x" "ab" 7 "c" 1.5 255}}': 'ab    |0007|"c"|1.50|ff',
  '{{and .State.Running "yes"}} {{or .Config.Cmd "no"}} {{not .State.Running}} {{gt 2 1}}': 'yes no false true',
  'a {{- " b " -}} c{{/* nothing */}}': 'a b c',
  '{{.Label "a"}}{{.Label "zz"}}': 'b',
  '{{.Config.Labels.nope}}': '<no value>',
  '{{`raw "text"`}} {{"}}"}}': 'raw "text" }}',
  '{{$v := 1}}{{if true}}{{$v = 2}}{{end}}{{$v}}': '2',
  '{{$v := 1}}{{if true}}{{$v := 2}}{{end}}{{$v}}': '1',
};

for (const [source, expected] of Object.entries(CASES)) {
  test(`${source} gives ${JSON.stringify(expected)}`, (t) => {
    t.is(apply(source), expected);
  });
}

test('templates that are wrong are refused when they are read', (t) => {
  for (const [source, message] of [
    ['{{.Name', 'template: :1: unclosed action'],
    ['{{nope .}}', 'template: :1: function "nope" not defined'],
    ['{{if .Name}}x', 'template: :1: unexpected EOF'],
    ['{{end}}', 'template: :1: unexpected {{end}}'],
    ['{{}}', 'template: :1: missing value for command'],
    ['{{(.Name}}', 'template: :1: unclosed left paren'],
    ['{{"abc}}', 'template: :1: unterminated quoted string'],
    ['{{.Name ~}}', 'template: :1: unexpected "~" in command'],
  ] as const) {
    t.throws(() => parseTemplate(source), { instanceOf: TemplateError, message });
  }
});

test('a member that is not there is told', (t) => {
  t.throws(() => apply('{{.Nope}}'), {
    message: 'template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope"',
  });
  t.throws(() => apply('{{.Name.Nope}}'), { message: /can't evaluate field Nope in type string/ });
  t.throws(() => apply('{{index .Config.Env 9}}'), { message: /out of range/ });
});

test("members of JavaScript's own objects cannot be reached", (t) => {
  for (const source of ['{{.constructor}}', '{{.State.__proto__}}', '{{.toString}}'])
    t.throws(() => apply(source), { message: /no entry for key/ });
});
