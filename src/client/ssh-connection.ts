import { Duplex } from 'node:stream';
import { EngineError } from '../core/errors.ts';
import { formatHostAddress, type HostAddress } from './host-address.ts';

/** What is kept of ssh's complaints, bytes. */
const MAX_DIAGNOSTIC_BYTES = 4096;

/** Words of the ssh command that reaches the remote daemon: `bulkhead system dial-stdio` over there joins its stdio to the socket. */
export function planSshCommand(address: HostAddress & { kind: 'ssh' }): string[] {
  const words = ['ssh'];
  if (address.user !== undefined) words.push('-l', address.user);
  if (address.port !== undefined) words.push('-p', String(address.port));
  words.push('-o', 'ConnectTimeout=30', '-T', '--', address.hostName, 'bulkhead');
  if (address.socketPath !== undefined) words.push('--host', quoteForShell(`unix://${address.socketPath}`));
  words.push('system', 'dial-stdio');
  return words;
}

/** A byte stream to the remote daemon through a child `ssh`. Its failure carries what ssh printed. */
export function connectThroughSsh(address: HostAddress & { kind: 'ssh' }): Duplex {
  const { spawn } = process.getBuiltinModule('node:child_process');
  const [program = 'ssh', ...words] = planSshCommand(address);
  const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'pipe'] });
  let diagnostic = '';
  child.stderr.setEncoding('utf8');
  child.stderr.on('data', (text: string) => {
    if (diagnostic.length < MAX_DIAGNOSTIC_BYTES) diagnostic += text;
  });
  const stream = Duplex.from({ readable: child.stdout, writable: child.stdin });
  // Agents of node:http call these on what they take for a socket.
  Object.assign(stream, {
    setKeepAlive: () => stream,
    setNoDelay: () => stream,
    setTimeout: () => stream,
    ref: () => stream,
    unref: () => stream,
  });
  const fail = (reason: string, cause?: unknown): void => {
    const place = formatHostAddress(address);
    stream.destroy(new EngineError('unavailable', `cannot reach the daemon through ${place}: ${reason}`, { cause }));
  };
  child.once('error', (error) => fail(`cannot run ssh: ${error.message}; install an ssh client`, error));
  child.once('close', (code, signal) => {
    if (code === 0 || stream.destroyed) return;
    const ending = signal === null ? `ssh exited with ${code}` : `ssh was ended by ${signal}`;
    fail(
      `${ending}: ${diagnostic.trim() || 'no message'}; check that \`ssh ${address.hostName} bulkhead version\` works`,
    );
  });
  stream.once('close', () => child.kill());
  return stream;
}

function quoteForShell(word: string): string {
  return `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
