import test from 'ava';
import { planResolvConf } from '../../src/network/resolv-conf.ts';

test('servers on the host’s own loopback are left out, settings are kept', (t) => {
  const text = planResolvConf('nameserver 127.0.0.1\nnameserver 192.0.2.7\nsearch example.org\noptions ndots:2\n');

  t.is(text, 'nameserver 192.0.2.7\nsearch example.org\noptions ndots:2');
});

test('behind systemd-resolved its own servers are taken', (t) => {
  t.is(planResolvConf('nameserver 127.0.0.53\n', 'nameserver 192.0.2.8\n'), 'nameserver 192.0.2.8');
});

test('a host without any server gets the public ones, as in Docker', (t) => {
  t.is(planResolvConf('nameserver ::1\n'), 'nameserver 8.8.8.8\nnameserver 8.8.4.4');
});
