import type { CommandContext } from '../command.ts';
import { describeError, exitCodeOf, ExitRequest } from '../exit-code.ts';

/** Does something for each name; a failure is told and does not keep the others from their turn. The exit code is the first failure's. */
export async function forEachName(
  context: CommandContext,
  names: readonly string[],
  act: (name: string) => Promise<void>,
): Promise<void> {
  let exitCode = 0;
  // One after the other for the same order of lines as Docker's; the daemon is asked for all at once.
  const results = names.map(async (name) =>
    act(name).then(
      () => undefined,
      (error: unknown) => ({ error }),
    ),
  );
  for (const pending of results) {
    const failed = await pending;
    if (failed === undefined) continue;
    context.stderr.write(`${describeError(failed.error)}\n`);
    exitCode ||= exitCodeOf(failed.error);
  }
  if (exitCode !== 0) throw new ExitRequest(exitCode);
}

/** As `forEachName`, one after the other. */
export async function forEachNameInOrder(
  context: CommandContext,
  names: readonly string[],
  act: (name: string) => Promise<void>,
): Promise<void> {
  let exitCode = 0;
  for (const name of names) {
    try {
      await act(name);
    } catch (error) {
      context.stderr.write(`${describeError(error)}\n`);
      exitCode ||= exitCodeOf(error);
    }
  }
  if (exitCode !== 0) throw new ExitRequest(exitCode);
}
