import { EngineError } from '../../core/errors.ts';
import { buildIsoImage } from './iso-image.ts';

/** What a machine's first boot is told. Source: cloud-init, "NoCloud" datasource. */
export interface SeedSpec {
  /** Another id makes cloud-init take the machine for a new one. */
  readonly instanceId: string;
  readonly hostname: string;
  /** `#cloud-config`, a script, MIME: given by the user, passed on as it is. Undefined is an empty configuration. */
  readonly userData: string | undefined;
  /** Undefined leaves the network alone. */
  readonly network: SeedNetwork | undefined;
  readonly createdAt: Date;
}

/** One interface with a fixed address; no DHCP server is needed for it. */
export interface SeedNetwork {
  readonly macAddress: string;
  readonly ipv4Address: string;
  readonly ipv4PrefixLength: number;
  readonly ipv4Gateway: string;
  readonly nameservers: readonly string[];
  readonly mtuBytes: number;
}

/** The label by which cloud-init finds its seed. */
const VOLUME_ID = 'cidata';
const MAXIMUM_USER_DATA_BYTES = 1024 * 1024;

/** First words by which cloud-init tells kinds of user-data apart; without one of them it does nothing, and says so only in its log. */
const KNOWN_STARTS = [
  '#cloud-config',
  '#!',
  '#include',
  '#cloud-boothook',
  '#cloud-config-archive',
  '#part-handler',
  '## template: jinja',
  'Content-Type: multipart',
  'MIME-Version:',
] as const;

/** The seed's disk image. */
export function buildSeed(spec: SeedSpec): Buffer {
  const userData = spec.userData ?? '#cloud-config\n{}\n';
  assertUserData(userData);
  // JSON is YAML: no quoting of our own.
  const metaData = { 'instance-id': spec.instanceId, 'local-hostname': spec.hostname };
  const files = [
    { name: 'meta-data', content: Buffer.from(`${JSON.stringify(metaData, undefined, 2)}\n`) },
    { name: 'user-data', content: Buffer.from(userData) },
  ];
  if (spec.network) {
    const config = JSON.stringify(networkConfig(spec.network), undefined, 2);
    files.push({ name: 'network-config', content: Buffer.from(`${config}\n`) });
  }
  return buildIsoImage({ volumeId: VOLUME_ID, files, createdAt: spec.createdAt });
}

export function assertUserData(userData: string): void {
  if (Buffer.byteLength(userData) > MAXIMUM_USER_DATA_BYTES) {
    throw new EngineError('limit-exceeded', `cloud-init user-data is larger than ${MAXIMUM_USER_DATA_BYTES} bytes`);
  }
  if (KNOWN_STARTS.some((start) => userData.startsWith(start))) return;
  const first = JSON.stringify(userData.split('\n', 1)[0]?.slice(0, 60) ?? '');
  throw new EngineError(
    'invalid-argument',
    `cloud-init user-data begins with ${first}, which cloud-init would ignore; its first line must be #cloud-config, or #! for a script`,
  );
}

/** Version 2, by MAC address: what the guest calls its interface is its own affair. Source: cloud-init, "Networking config Version 2". */
function networkConfig(network: SeedNetwork): object {
  return {
    version: 2,
    ethernets: {
      primary: {
        match: { macaddress: network.macAddress },
        addresses: [`${network.ipv4Address}/${network.ipv4PrefixLength}`],
        // The older word, because cloud-init 22 (Debian 12) knows no default routes in `routes` for every renderer.
        gateway4: network.ipv4Gateway,
        mtu: network.mtuBytes,
        // No router announces itself on our bridges. Netplan heeds this; cloud-init 22's own writer for systemd-networkd drops it.
        'accept-ra': false,
        nameservers: { addresses: network.nameservers },
      },
    },
  };
}
