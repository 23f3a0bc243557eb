import test from 'ava';
import {
  allocateAddress,
  chooseSubnet,
  formatAddress,
  formatSubnet,
  macAddressFor,
  parseAddress,
  parseSubnet,
  subnetsOverlap,
} from '../../src/core/address-allocation.ts';

test('a subnet is its network, whatever host bits were written', (t) => {
  t.is(formatSubnet(parseSubnet('172.30.7.9/16')), '172.30.0.0/16');
  t.throws(() => parseSubnet('172.30.0.0'), { message: /invalid subnet/ });
  t.throws(() => parseAddress('1.2.3.256'), { message: /invalid IPv4 address/ });
});

test('overlap is seen from either side', (t) => {
  t.true(subnetsOverlap(parseSubnet('10.0.0.0/8'), parseSubnet('10.9.0.0/16')));
  t.true(subnetsOverlap(parseSubnet('10.9.0.0/16'), parseSubnet('10.0.0.0/8')));
  t.false(subnetsOverlap(parseSubnet('10.8.0.0/16'), parseSubnet('10.9.0.0/16')));
});

test('the first pool that the host does not use is chosen, and none left is an error that names them', (t) => {
  const pools = ['172.30.0.0/16', '172.31.0.0/16'].map(parseSubnet);

  t.is(formatSubnet(chooseSubnet(pools, [parseSubnet('172.30.4.0/24')])), '172.31.0.0/16');
  t.throws(() => chooseSubnet(pools, [parseSubnet('172.16.0.0/12')]), {
    message: /172\.30\.0\.0\/16, 172\.31\.0\.0\/16.*--bip/,
  });
});

test('addresses go round: one just given back is not the next', (t) => {
  const subnet = parseSubnet('10.1.0.0/29');
  const used = new Set<number>();
  let last: number | undefined;
  const next = (): string => {
    last = allocateAddress(subnet, used, last);
    used.add(last);
    return formatAddress(last);
  };

  t.deepEqual([next(), next()], ['10.1.0.2', '10.1.0.3']);
  used.delete(parseAddress('10.1.0.3'));
  t.deepEqual([next(), next(), next(), next()], ['10.1.0.4', '10.1.0.5', '10.1.0.6', '10.1.0.3']);
  t.throws(next, { message: /no free address left in 10\.1\.0\.0\/29/ });
});

test('a MAC address follows from the address', (t) => {
  t.is(macAddressFor(parseAddress('172.30.0.2')), '02:42:ac:1e:00:02');
});
