import test from 'ava';
import { planFirewall } from '../../src/network/firewall.ts';
import { run } from '../support/daemon.ts';

test('nft takes the whole table as one transaction, replaces it, and names only our bridge', async (t) => {
  const plan = { table: 'bulkhead-test', bridge: 'bhtest0', subnet: '10.99.0.0/16' };
  const script = `nft -j '${JSON.stringify(planFirewall(plan))}' && nft -j '${JSON.stringify(planFirewall(plan))}' && nft list ruleset`;

  const { code, stdout, stderr } = await run('unshare', [
    '-n',
    'sh',
    '-c',
    `PATH=/usr/sbin:/usr/bin:/sbin:/bin; ${script}`,
  ]);

  t.is(code, 0, stderr);
  t.is(stdout.match(/table inet/g)?.length, 1);
  t.regex(stdout, /ip saddr 10\.99\.0\.0\/16 oifname != "bhtest0" masquerade/);
  t.is(stdout.match(/oifname "bhtest0" drop/g)?.length, 1);
});
