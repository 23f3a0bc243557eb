import test from 'ava';
import { runInNetworkNamespace } from './in-network-namespace.ts';

test('a bridge is made up, without spanning tree, with its address and MTU, and the second time is left as it is', (t) => {
  const result = runInNetworkNamespace(`
    const spec = { name: 'bh-test0', address: '10.9.0.1', prefixLength: 24, mtuBytes: 1400 };
    const first = await links.ensureBridge(spec);
    const second = await links.ensureBridge(spec);
    const [shown] = JSON.parse(ip('-details', '-json', 'address', 'show', 'bh-test0'));
    return { first, second, shown };`);

  t.like(result, {
    first: { created: true },
    second: { created: false },
    shown: {
      mtu: 1400,
      linkinfo: { info_kind: 'bridge', info_data: { stp_state: 0 } },
      addr_info: [{ family: 'inet', local: '10.9.0.1', prefixlen: 24, broadcast: '10.9.0.255' }],
    },
  });
  const { first, second, shown } = result as {
    first: { hardwareAddress: string };
    second: { hardwareAddress: string };
    shown: { flags: string[] };
  };
  t.true(shown.flags.includes('UP'));
  t.is(first.hardwareAddress, second.hardwareAddress);
});

test('a bridge that is otherwise is put right: down, spanning tree on, other MTU, other addresses', (t) => {
  const result = runInNetworkNamespace(`
    ip('link', 'add', 'bh-test0', 'mtu', '1300', 'type', 'bridge', 'stp_state', '1');
    ip('address', 'add', '10.1.0.1/16', 'dev', 'bh-test0');
    ip('address', 'add', '10.9.0.1/16', 'dev', 'bh-test0');
    await links.ensureBridge({ name: 'bh-test0', address: '10.9.0.1', prefixLength: 24, mtuBytes: 1500 });
    return JSON.parse(ip('-4', '-details', '-json', 'address', 'show', 'bh-test0'))[0];`);

  t.like(result, { mtu: 1500, linkinfo: { info_data: { stp_state: 0 } } });
  t.deepEqual(
    (result as { addr_info: { local: string; prefixlen: number }[] }).addr_info.map(
      ({ local, prefixlen }) => `${local}/${prefixlen}`,
    ),
    ['10.9.0.1/24'],
  );
});

test('a bridge without an address has none, and keeps its hardware address when a port comes', (t) => {
  const result = runInNetworkNamespace(`
    const { hardwareAddress } = await links.ensureBridge({ name: 'bh-test0', mtuBytes: 1500 });
    ip('link', 'add', 'bh-port', 'address', '00:00:00:00:00:01', 'type', 'veth', 'peer', 'name', 'other-end');
    ip('link', 'set', 'bh-port', 'master', 'bh-test0');
    const [bridge, port] = (await links.listLinks('bh-')).toSorted((a, b) => a.index - b.index);
    const { addresses } = await links.listHostRoutes();
    return { hardwareAddress, bridge, port, ipv4: addresses.filter(({ address }) => address.includes('.')) };`);

  const { hardwareAddress, bridge, port } = result as {
    hardwareAddress: string;
    bridge: { index: number };
    port: object;
  };
  t.like(bridge, { name: 'bh-test0', kind: 'bridge', up: true, hardwareAddress });
  t.like(port, { name: 'bh-port', kind: 'veth', up: false, bridgeIndex: bridge.index });
  t.like(result, { ipv4: [] });
});

test('a link of another kind, a bad name and a bad MTU are refused', (t) => {
  const result = runInNetworkNamespace(`
    ip('link', 'add', 'bh-veth', 'type', 'veth', 'peer', 'name', 'other-end');
    return Promise.all([
      failureOf(links.ensureBridge({ name: 'bh-veth', mtuBytes: 1500 })),
      failureOf(links.ensureBridge({ name: 'a-name-that-is-too-long', mtuBytes: 1500 })),
      failureOf(links.ensureBridge({ name: '../x', mtuBytes: 1500 })),
      failureOf(links.ensureBridge({ name: 'bh-test0', mtuBytes: 10 })),
      failureOf(links.ensureBridge({ name: 'bh-test0', address: '10.9.0', mtuBytes: 1500 })),
    ]);`);

  t.like(result, [
    { code: 'conflict', message: 'link bh-veth exists and is no bridge: choose another name or delete it' },
    { code: 'invalid-argument' },
    { code: 'invalid-argument' },
    { code: 'invalid-argument' },
    { code: 'invalid-argument' },
  ]);
});

test('a link is deleted once, and then is not there', (t) => {
  const result = runInNetworkNamespace(`
    await links.ensureBridge({ name: 'bh-test0', mtuBytes: 1500 });
    return [await links.deleteLink('bh-test0'), await links.deleteLink('bh-test0'), await links.listLinks('bh-')];`);

  t.deepEqual(result, [true, false, []]);
});

test('addresses and routes tell which subnets the host uses', (t) => {
  const result = runInNetworkNamespace(`
    await links.ensureBridge({ name: 'bh-test0', address: '10.9.0.1', prefixLength: 24, mtuBytes: 1500 });
    ip('route', 'add', '10.77.0.0/16', 'via', '10.9.0.2');
    ip('route', 'add', 'default', 'via', '10.9.0.3');
    ip('route', 'add', 'blackhole', '10.78.0.0/16');
    return { subnets: await links.listIpv4Subnets(), routes: (await links.listHostRoutes()).routes };`);

  const { subnets, routes } = result as { subnets: { subnet: string }[]; routes: object[] };
  t.deepEqual(subnets.map(({ subnet }) => subnet).toSorted(), [
    '10.77.0.0/16',
    '10.78.0.0/16',
    '10.9.0.0/24',
    '10.9.0.1/24',
  ]);
  t.like(
    routes.find((route) => 'destination' in route && route.destination === '0.0.0.0'),
    { prefixLength: 0, gateway: '10.9.0.3' },
  );
});

test('hundreds of links, more than one answer of the kernel holds, are all listed', (t) => {
  const result = runInNetworkNamespace(`
    const batch = Array.from({ length: 400 }, (_, index) => 'link add bh-many' + index + ' type bridge').join('\\n');
    execFileSync('ip', ['-batch', '-'], { input: batch });
    return (await links.listLinks('bh-many')).length;`);

  t.is(result, 400);
});

test('forwarding is enabled, and it is told whether it was', (t) => {
  const result = runInNetworkNamespace(`
    const path = '/proc/sys/net/ipv4/ip_forward';
    writeFileSync(path, '0');
    return [await links.enableIpv4Forwarding(), await links.enableIpv4Forwarding(), readFileSync(path, 'utf8').trim()];`);

  t.deepEqual(result, [{ wasEnabled: false }, { wasEnabled: true }, '1']);
});
