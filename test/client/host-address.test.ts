import test from 'ava';
import { formatHostAddress, parseHostAddress } from '../../src/client/host-address.ts';
import { planSshCommand } from '../../src/client/ssh-connection.ts';

test('addresses are read as Docker reads them', (t) => {
  t.deepEqual(parseHostAddress('unix:///run/x.sock'), { kind: 'unix', path: '/run/x.sock' });
  t.deepEqual(parseHostAddress('tcp://example.test'), { kind: 'tcp', hostName: 'example.test', port: 2375 });
  t.deepEqual(parseHostAddress('tcp://example.test', true), { kind: 'tcp', hostName: 'example.test', port: 2376 });
  t.deepEqual(parseHostAddress('tcp://[::1]:99'), { kind: 'tcp', hostName: '::1', port: 99 });
  t.is(formatHostAddress(parseHostAddress('tcp://[::1]:99')), 'tcp://[::1]:99');
});

test('an address that cannot be read names itself and the remedy', (t) => {
  for (const text of ['ftp://x', 'unix://', 'tcp://a:b:c', 'ssh://', 'tcp://x:99999']) {
    t.throws(
      () => parseHostAddress(text),
      { message: new RegExp(`unable to parse docker host .*${text.replaceAll('/', '\\/')}`) },
      text,
    );
  }
});

test('ssh reaches the remote daemon through dial-stdio, and no host name can become an option', (t) => {
  const address = parseHostAddress('ssh://ann@far.test:2222/srv/b.sock');
  t.deepEqual(address.kind === 'ssh' ? planSshCommand(address) : [], [
    'ssh',
    '-l',
    'ann',
    '-p',
    '2222',
    '-o',
    'ConnectTimeout=30',
    '-T',
    '--',
    'far.test',
    'bulkhead',
    '--host',
    "'unix:///srv/b.sock'",
    'system',
    'dial-stdio',
  ]);
  t.throws(() => parseHostAddress('ssh://-oProxyCommand=x'));
});
