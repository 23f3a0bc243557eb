import { EngineError, toEngineError } from '../../core/errors.ts';
import type { WaitCondition, WaitResult } from '../../engine/engine.ts';
import { pathParameter } from '../api-request.ts';
import { isAtLeast } from '../api-version.ts';
import { booleanParameter, textParameter, timestampParameter } from '../query.ts';
import type { Route } from '../route.ts';

const RAW_TYPE = 'application/vnd.docker.raw-stream';
const MULTIPLEXED_TYPE = 'application/vnd.docker.multiplexed-stream';

export const containerStreamRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/containers/{id}/attach',
    hijack: (request, { engine }) =>
      engine.containers.attach(pathParameter(request, 'id'), {
        stdin: booleanParameter(request.query, 'stdin'),
        stdout: booleanParameter(request.query, 'stdout'),
        stderr: booleanParameter(request.query, 'stderr'),
        logs: booleanParameter(request.query, 'logs'),
        stream: booleanParameter(request.query, 'stream'),
        detachKeys: textParameter(request.query, 'detachKeys'),
      }),
  },
  {
    method: 'GET',
    path: '/containers/{id}/logs',
    async handle(request, reply, { engine }) {
      const stdout = booleanParameter(request.query, 'stdout');
      const stderr = booleanParameter(request.query, 'stderr');
      if (!stdout && !stderr) {
        throw new EngineError('invalid-argument', 'Bad parameters: you must choose at least one stream');
      }
      const { tty, output } = await engine.containers.logs(
        pathParameter(request, 'id'),
        {
          stdout,
          stderr,
          follow: booleanParameter(request.query, 'follow'),
          sinceNs: timestampParameter(request.query, 'since'),
          untilNs: timestampParameter(request.query, 'until'),
          tail: parseTail(request.query.get('tail')),
          timestamps: booleanParameter(request.query, 'timestamps'),
          details: booleanParameter(request.query, 'details'),
        },
        request.signal,
      );
      const isMultiplexed = !tty && isAtLeast(request.version, '1.42');
      await reply.sendBytes(output, isMultiplexed ? MULTIPLEXED_TYPE : RAW_TYPE, request.signal);
    },
  },
  {
    method: 'POST',
    path: '/containers/{id}/wait',
    async handle(request, reply, { engine }) {
      const condition = parseCondition(request.query.get('condition') ?? '');
      const { result } = engine.containers.wait(pathParameter(request, 'id'), condition, request.signal);
      // `docker run` starts the container when it has these headers: they say that the exit will not be missed.
      if (isAtLeast(request.version, '1.30')) reply.startStream();
      const outcome = await result.catch((thrown: unknown): WaitResult => {
        const error = toEngineError(thrown);
        if (!reply.isStarted) throw error;
        return { exitCode: -1, error: error.message };
      });
      if (request.signal.aborted) return;
      const body = {
        StatusCode: outcome.exitCode,
        ...(outcome.error === '' ? {} : { Error: { Message: outcome.error } }),
      };
      if (reply.isStarted) {
        await reply.write(`${JSON.stringify(body)}\n`);
        reply.end();
      } else {
        reply.json(200, body);
      }
    },
  },
];

/** A number of lines; anything else, `all` for one, is all of them. */
function parseTail(text: string | null): number | undefined {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function parseCondition(text: string): WaitCondition {
  if (text === '') return 'not-running';
  if (text === 'not-running' || text === 'next-exit' || text === 'removed') return text;
  throw new EngineError('invalid-argument', `invalid condition: ${JSON.stringify(text)}`);
}
