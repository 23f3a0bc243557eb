import test from 'ava';
import { nextDelayMs, restartPolicy, wantsRestart } from '../../src/core/restart-policy.ts';

const ended = { exitCode: 0, restartCount: 0, isStoppedByHand: false };

test('what each policy makes of each end', (t) => {
  const verdicts = (name: string, maximum = 0): boolean[] =>
    [
      ended,
      { ...ended, exitCode: 1 },
      { ...ended, exitCode: 1, restartCount: 3 },
      { ...ended, exitCode: 137, isStoppedByHand: true },
    ].map((facts) => wantsRestart(restartPolicy({ Name: name, MaximumRetryCount: maximum }), facts));

  t.deepEqual(verdicts('no'), [false, false, false, false]);
  t.deepEqual(verdicts('always'), [true, true, true, true]);
  t.deepEqual(verdicts('unless-stopped'), [true, true, true, false]);
  t.deepEqual(verdicts('on-failure'), [false, true, true, true]);
  t.deepEqual(verdicts('on-failure', 3), [false, true, false, true]);
});

test('nothing asked is no policy', (t) => {
  for (const asked of [undefined, null, {}, { Name: '' }, { Name: null, MaximumRetryCount: null }]) {
    t.deepEqual(restartPolicy(asked), { name: 'no', maximumRetryCount: 0 });
  }
});

test('the delay doubles from 100 ms to a minute, and begins anew after a run of 10 s', (t) => {
  const delays: number[] = [];
  for (let count = 0; count < 12; count++) delays.push(nextDelayMs(delays.at(-1), 50));

  t.deepEqual(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
  t.is(nextDelayMs(60_000, 9_999), 60_000);
  t.is(nextDelayMs(60_000, 10_000), 100);
});
