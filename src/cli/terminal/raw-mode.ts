import type { CommandContext } from '../command.ts';

/**
 * Puts the caller's terminal into raw mode until disposed. It is restored on every way out, also when the process is ended by `process.exit`:
 * a shell with echo off is the worst thing a CLI can leave behind.
 */
export function enterRawMode(stdin: CommandContext['stdin']): Disposable {
  const terminal = stdin as CommandContext['stdin'] & { setRawMode?: (raw: boolean) => unknown };
  if (stdin.isTTY !== true || terminal.setRawMode === undefined) return { [Symbol.dispose]: () => {} };
  const setRawMode = terminal.setRawMode.bind(terminal);
  const restore = (): void => {
    setRawMode(false);
  };
  setRawMode(true);
  process.once('exit', restore);
  return {
    [Symbol.dispose]: () => {
      process.removeListener('exit', restore);
      restore();
    },
  };
}
