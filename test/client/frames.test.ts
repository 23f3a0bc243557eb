import { PassThrough, Readable, Writable } from 'node:stream';
import test from 'ava';
import { demultiplex } from '../../src/client/frames.ts';
import { frame } from './scripted-daemon.ts';

function collector(): { sink: Writable; text: () => string } {
  const chunks: Buffer[] = [];
  const sink = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      chunks.push(chunk);
      done();
    },
  });
  return { sink, text: () => Buffer.concat(chunks).toString() };
}

test('stdout and stderr are told apart wherever the chunks are cut', async (t) => {
  const bytes = Buffer.concat([frame(1, 'out one\n'), frame(2, 'err\n'), frame(1, ''), frame(1, 'out two\n')]);
  for (let size = 1; size <= bytes.length; size += 1) {
    const stdout = collector();
    const stderr = collector();
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
      bytes.subarray(index * size, (index + 1) * size),
    );
    await demultiplex(Readable.from(chunks), { stdout: stdout.sink, stderr: stderr.sink });
    t.is(stdout.text(), 'out one\nout two\n');
    t.is(stderr.text(), 'err\n');
  }
});

test('a full sink holds back the source', async (t) => {
  const source = new PassThrough({ highWaterMark: 1024 });
  const released: (() => void)[] = [];
  const sink = new Writable({ highWaterMark: 1, write: (_chunk, _encoding, done) => void released.push(done) });
  const done = demultiplex(source, { stdout: sink, stderr: undefined });
  source.write(frame(1, 'a'.repeat(10)));
  source.write(frame(1, 'b'.repeat(10)));
  source.end(frame(1, 'c'.repeat(10)));
  await new Promise((resolve) => setImmediate(resolve));
  t.is(released.length, 1, 'the second payload waits for the first');
  while (released.length > 0) {
    released.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await done;
  t.pass();
});

test('a stream that breaks off within a frame is an error', async (t) => {
  const broken = frame(1, 'whole text').subarray(0, 12);
  await t.throwsAsync(demultiplex(Readable.from([broken]), { stdout: undefined, stderr: undefined }), {
    message: /broke off/,
  });
});

test("the daemon's own error in the stream is thrown", async (t) => {
  await t.throwsAsync(
    demultiplex(Readable.from([frame(3, 'log driver failed')]), { stdout: undefined, stderr: undefined }),
    { message: /log driver failed/ },
  );
});

test('an unknown stream number is refused', async (t) => {
  await t.throwsAsync(demultiplex(Readable.from([frame(9, 'x')]), { stdout: undefined, stderr: undefined }), {
    message: /unrecognized stream 9/,
  });
});
