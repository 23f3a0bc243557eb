import type { Subject } from './subjects.ts';

/** Something that is timed: resolves to milliseconds. */
export interface Scenario {
  readonly title: string;
  /** Rounds in proportion to those of the quickest scenario. */
  readonly share: number;
  /** The image it wants; the small one if it does not say. */
  readonly image?: 'debian';
  measure(subject: Subject, image: string): Promise<number>;
}

const PARALLEL = 10;

const elapsedMs = ({ startedNs, endedNs }: { startedNs: number; endedNs: number }): number =>
  (endedNs - startedNs) / 1e6;

function runScenario(title: string, network: string, command: readonly string[] = ['true']): Scenario {
  return {
    title,
    share: 1,
    async measure({ engine, flags }, image) {
      return elapsedMs(await engine.docker('run', '--rm', '--network', network, ...flags, image, ...command));
    },
  };
}

async function startTogether({ engine, flags }: Subject, image: string, count: number): Promise<number> {
  const names = Array.from({ length: count }, (_, index) => `start-${index}`);
  try {
    for (const name of names) await engine.docker('create', '--name', name, ...flags, image, 'true');
    const since = performance.now();
    // All are waited for, even when one cannot start: nothing may still be on its way when the containers are removed.
    const outcomes = await Promise.allSettled(names.map((name) => engine.docker('start', name)));
    const ms = performance.now() - since;
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    await engine.docker('wait', ...names);
    return ms;
  } finally {
    await engine.docker('rm', '-f', ...names);
  }
}

/** A further process in a container that runs. */
async function execIn({ engine, flags }: Subject, image: string): Promise<number> {
  await engine.docker('run', '-d', '--name', 'exec', ...flags, image, 'sleep', '1000');
  try {
    // The first one pays for what all others find there.
    await engine.docker('exec', 'exec', 'true');
    return elapsedMs(await engine.docker('exec', 'exec', 'true'));
  } finally {
    await engine.docker('rm', '-f', 'exec');
  }
}

export const SCENARIOS: readonly Scenario[] = [
  runScenario('run --rm, default bridge', 'bridge'),
  runScenario('run --rm, --network none', 'none'),
  {
    title: 'start of a created container',
    share: 1,
    measure: (subject, image) => startTogether(subject, image, 1),
  },
  { title: 'exec true in a container', share: 1, measure: execIn },
  {
    title: `${PARALLEL} starts at once`,
    share: 1 / 3,
    measure: (subject, image) => startTogether(subject, image, PARALLEL),
  },
  { ...runScenario('debian: bash -c :', 'bridge', ['bash', '-c', ':']), image: 'debian' },
  { ...runScenario('debian: python3 -c 0', 'bridge', ['python3', '-c', '0']), image: 'debian' },
];
