import { execFileSync } from 'node:child_process';

/**
 * Runs the body of an async function, in which `links` is the module under test and `ip` runs iproute2, in a network namespace of its own,
 * and gives its result, which must be JSON. Needs root.
 */
export function runInNetworkNamespace(body: string): unknown {
  const links = new URL('../../../src/platform/ffi/links.ts', import.meta.url).href;
  const script = `
    import { execFileSync } from 'node:child_process';
    import { readFileSync, writeFileSync } from 'node:fs';
    import * as links from ${JSON.stringify(links)};
    const ip = (...args) => execFileSync('ip', args, { encoding: 'utf8' });
    const failureOf = async (promise) => promise.then(() => 'no failure', ({ code, message }) => ({ code, message }));
    const result = await (async () => {${body}})();
    console.log(JSON.stringify(result));`;
  const command = ['--net', process.execPath, '--input-type=module', '--eval', script];
  return JSON.parse(execFileSync('unshare', command, { encoding: 'utf8' }));
}
