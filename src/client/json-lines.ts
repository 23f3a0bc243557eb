import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { EngineError } from '../core/errors.ts';

/** One message of a stream is at most this long, UTF-16 units. */
const MAX_LINE_LENGTH = 16 * 1024 * 1024;

/** Values of a stream of JSON texts, one a line (`\n` or `\r\n`); empty lines are skipped. */
export async function* readJsonLines(source: Readable): AsyncGenerator<unknown, void, undefined> {
  const decoder = new StringDecoder('utf8');
  let pending = '';
  for await (const chunk of source as AsyncIterable<Buffer>) {
    const lines = (pending + decoder.write(chunk)).split('\n');
    pending = lines.pop() ?? '';
    if (pending.length > MAX_LINE_LENGTH)
      throw new EngineError('limit-exceeded', 'a message of the daemon is longer than 16 MiB');
    for (const line of lines) if (line.trim() !== '') yield parseLine(line);
  }
  const last = pending + decoder.end();
  if (last.trim() !== '') yield parseLine(last);
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new EngineError('internal', `the daemon sent a message that is not JSON: ${line.slice(0, 100)}`, {
      cause: error,
    });
  }
}
