import test from 'ava';
import {
  familiarName,
  familiarString,
  imageReferenceFromParts,
  parseImageReference,
  withDefaultTag,
} from '../../src/core/image-reference.ts';

const DIGEST = `sha256:${'a1'.repeat(32)}`;

const valid: Record<string, [domain: string, path: string, familiar: string]> = {
  alpine: ['docker.io', 'library/alpine', 'alpine'],
  'alpine:3.20': ['docker.io', 'library/alpine', 'alpine:3.20'],
  'user/app': ['docker.io', 'user/app', 'user/app'],
  'docker.io/library/alpine:x': ['docker.io', 'library/alpine', 'alpine:x'],
  'docker.io/alpine': ['docker.io', 'library/alpine', 'alpine'],
  'index.docker.io/library/alpine': ['docker.io', 'library/alpine', 'alpine'],
  'docker.io/library/a/b': ['docker.io', 'library/a/b', 'library/a/b'],
  'localhost/x': ['localhost', 'x', 'localhost/x'],
  'localhost:5000/x': ['localhost:5000', 'x', 'localhost:5000/x'],
  'localhost:5000/x/y__z:Tag_1.2-3': ['localhost:5000', 'x/y__z', 'localhost:5000/x/y__z:Tag_1.2-3'],
  '[::1]:5000/x': ['[::1]:5000', 'x', '[::1]:5000/x'],
  'ghcr.io/a/b/c': ['ghcr.io', 'a/b/c', 'ghcr.io/a/b/c'],
  'FOO/bar': ['FOO', 'bar', 'FOO/bar'],
  'a--b/c': ['docker.io', 'a--b/c', 'a--b/c'],
  [`alpine@${DIGEST}`]: ['docker.io', 'library/alpine', `alpine@${DIGEST}`],
  [`alpine:3@${DIGEST}`]: ['docker.io', 'library/alpine', `alpine:3@${DIGEST}`],
};

for (const [text, [domain, path, familiar]] of Object.entries(valid)) {
  test(`"${text}" is ${domain}/${path}`, (t) => {
    const reference = parseImageReference(text);

    t.is(reference.domain, domain);
    t.is(reference.path, path);
    t.is(familiarString(reference), familiar);
    t.deepEqual(parseImageReference(familiarString(reference)), reference);
  });
}

const invalid: Record<string, string> = {
  '': 'invalid reference format',
  ':tag': 'invalid reference format',
  'a b': 'invalid reference format',
  'alpine:': 'invalid reference format',
  'alpine:-x': 'invalid reference format',
  '/alpine': 'invalid reference format',
  'a//b': 'invalid reference format',
  '../x': 'invalid reference format',
  'a..b': 'invalid reference format',
  'https://host/x': 'invalid reference format',
  [`alpine:${'t'.repeat(129)}`]: 'invalid reference format',
  Alpine: 'invalid reference format: repository name (library/Alpine) must be lowercase',
  'localhost:5000/App:1': 'invalid reference format: repository name (App) must be lowercase',
  ['b2'.repeat(32)]: `invalid repository name (${'b2'.repeat(32)}), cannot specify 64-byte hexadecimal strings`,
  ['x'.repeat(250)]: 'repository name must not be more than 255 characters',
  [`alpine@sha256:${'a'.repeat(40)}`]: 'invalid checksum digest length',
  [`alpine@sha512:${'a'.repeat(128)}`]: 'unsupported digest algorithm',
};

for (const [text, message] of Object.entries(invalid)) {
  test(`"${text.slice(0, 30)}" is refused: ${message.slice(0, 60)}`, (t) => {
    t.throws(() => parseImageReference(text), { message, code: 'invalid-argument' });
  });
}

test('a name without tag and digest means latest', (t) => {
  t.is(withDefaultTag(parseImageReference('alpine')).tag, 'latest');
  t.is(withDefaultTag(parseImageReference(`alpine@${DIGEST}`)).tag, undefined);
  t.is(familiarName(parseImageReference('alpine:3')), 'alpine');
});

test("docker's two parameters of a pull make one reference", (t) => {
  t.is(familiarString(imageReferenceFromParts('alpine', '3')), 'alpine:3');
  t.is(familiarString(imageReferenceFromParts('alpine', DIGEST)), `alpine@${DIGEST}`);
  t.is(familiarString(imageReferenceFromParts('alpine:3', '')), 'alpine:3');
  t.throws(() => imageReferenceFromParts('alpine', '!'), { message: 'invalid tag format' });
});
