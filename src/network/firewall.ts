import { runProgram } from '../platform/exec.ts';

export interface FirewallPlan {
  /** Name of our own table in the inet family; nobody else's table is touched. */
  readonly table: string;
  readonly bridge: string;
  readonly subnet: string;
}

/**
 * The whole table as one transaction of nft's JSON, replacing what an earlier run left.
 * Outbound: masqueraded. Inbound: only replies, and neighbours on the same bridge; published ports are held by the shims, on the host.
 * Handed over as an argument: nft reads its standard input by opening /dev/stdin, which fails for the socket pair that Node gives a child.
 * Source: libnftables-json(5).
 */
export function planFirewall({ table, bridge, subnet }: FirewallPlan): object {
  const family = 'inet';
  const [address, length] = subnet.split('/');
  const chain = (name: string, type: string, hook: string, priority: number): object => ({
    add: { chain: { family, table, name, type, hook, prio: priority, policy: 'accept' } },
  });
  const rule = (chainName: string, ...expr: object[]): object => ({
    add: { rule: { family, table, chain: chainName, expr } },
  });
  const meta = (key: string, op: string, right: string): object => ({ match: { op, left: { meta: { key } }, right } });
  const isReply = { match: { op: 'in', left: { ct: { key: 'state' } }, right: ['established', 'related'] } };
  const fromSubnet = {
    match: {
      op: '==',
      left: { payload: { protocol: 'ip', field: 'saddr' } },
      right: { prefix: { addr: address, len: Number(length) } },
    },
  };
  return {
    nftables: [
      { add: { table: { family, name: table } } },
      { delete: { table: { family, name: table } } },
      { add: { table: { family, name: table } } },
      chain('postrouting', 'nat', 'postrouting', 100),
      chain('forward', 'filter', 'forward', 0),
      rule('postrouting', fromSubnet, meta('oifname', '!=', bridge), { masquerade: null }),
      rule('forward', meta('iifname', '==', bridge), { accept: null }),
      rule('forward', meta('oifname', '==', bridge), isReply, { accept: null }),
      rule('forward', meta('oifname', '==', bridge), { drop: null }),
    ],
  };
}

export async function applyFirewall(plan: FirewallPlan): Promise<void> {
  await runProgram('nft', ['-j', JSON.stringify(planFirewall(plan))], {
    purpose: `set up the firewall table inet ${plan.table}`,
  });
}

/** Removes our table; that there is none is a success. */
export async function removeFirewall(table: string): Promise<void> {
  const family = 'inet';
  const commands = [{ add: { table: { family, name: table } } }, { delete: { table: { family, name: table } } }];
  await runProgram('nft', ['-j', JSON.stringify({ nftables: commands })], {
    purpose: `remove the firewall table inet ${table}`,
  });
}
