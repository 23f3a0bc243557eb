import type { InfoAnswer } from '../../client/index.ts';
import { formatBinaryBytes } from './units.ts';

/** The daemon's part of `info`, in Docker's order; ours is a paragraph of its own at the end. Lines without a value are left out. */
export function describeInfo(info: InfoAnswer): string {
  const lines: string[] = [];
  const add = (depth: number, name: string, value: unknown): void => {
    if (value === undefined || value === null || value === '') return;
    lines.push(`${' '.repeat(depth)}${name}: ${typeof value === 'string' ? value : JSON.stringify(value)}`);
  };
  add(1, 'Containers', info['Containers']);
  add(2, 'Running', info['ContainersRunning']);
  add(2, 'Paused', info['ContainersPaused']);
  add(2, 'Stopped', info['ContainersStopped']);
  add(1, 'Images', info['Images']);
  add(1, 'Server Version', info['ServerVersion']);
  add(1, 'Storage Driver', info['Driver']);
  for (const pair of listOf(info['DriverStatus'])) if (Array.isArray(pair)) add(2, String(pair[0]), pair[1]);
  add(1, 'Logging Driver', info['LoggingDriver']);
  add(1, 'Cgroup Driver', info['CgroupDriver']);
  add(1, 'Cgroup Version', info['CgroupVersion']);
  const plugins = mapOf(info['Plugins']);
  if (Object.keys(plugins).length > 0) {
    lines.push(' Plugins:');
    for (const name of ['Volume', 'Network', 'Authorization', 'Log']) {
      const values = listOf(plugins[name]).map(String);
      if (values.length > 0) add(2, name, values.join(' '));
    }
  }
  const swarm = mapOf(info['Swarm'])['LocalNodeState'];
  add(1, 'Swarm', swarm);
  const runtimes = Object.keys(mapOf(info['Runtimes'])).sort();
  if (runtimes.length > 0) add(1, 'Runtimes', runtimes.join(' '));
  add(1, 'Default Runtime', info['DefaultRuntime']);
  const security = listOf(info['SecurityOptions']).map(String);
  if (security.length > 0) {
    lines.push(' Security Options:');
    for (const option of security) for (const line of describeSecurityOption(option)) lines.push(line);
  }
  add(1, 'Kernel Version', info['KernelVersion']);
  add(1, 'Operating System', info['OperatingSystem']);
  add(1, 'OSType', info['OSType']);
  add(1, 'Architecture', info['Architecture']);
  add(1, 'CPUs', info['NCPU']);
  if (typeof info['MemTotal'] === 'number') add(1, 'Total Memory', formatBinaryBytes(info['MemTotal']));
  add(1, 'Name', info['Name']);
  add(1, 'ID', info.ID);
  add(1, 'Docker Root Dir', info['DockerRootDir']);
  add(1, 'Debug Mode', info['Debug']);
  const labels = listOf(info['Labels']).map(String);
  if (labels.length > 0) lines.push(' Labels:', ...labels.map((label) => `  ${label}`));
  add(1, 'Experimental', info['ExperimentalBuild']);
  const registry = mapOf(info['RegistryConfig']);
  const insecure = [
    ...Object.values(mapOf(registry['IndexConfigs']))
      .map(mapOf)
      .filter((index) => index['Secure'] === false)
      .map((index) => String(index['Name'])),
    ...listOf(registry['InsecureRegistryCIDRs']).map(String),
  ];
  if (insecure.length > 0) lines.push(' Insecure Registries:', ...insecure.map((name) => `  ${name}`));
  const mirrors = listOf(registry['Mirrors']).map(String);
  if (mirrors.length > 0) lines.push(' Registry Mirrors:', ...mirrors.map((name) => `  ${name}`));
  add(1, 'Live Restore Enabled', info['LiveRestoreEnabled']);
  const own = Object.entries(mapOf(info['Bulkhead']));
  if (own.length > 0) {
    lines.push(' Bulkhead:');
    for (const [name, value] of own) add(2, name, value);
  }
  return `${lines.join('\n')}\n\n`;
}

/** `name=seccomp,profile=builtin` → the name, and its details below it. */
function describeSecurityOption(option: string): string[] {
  const fields = option.split(',').map((field) => field.split('=') as [string, string | undefined]);
  const name = fields.find(([key]) => key === 'name')?.[1] ?? option;
  return [
    `  ${name}`,
    ...fields
      .filter(([key]) => key !== 'name')
      .map(([key, value]) => `   ${key === 'profile' ? 'Profile' : key}: ${value ?? ''}`),
  ];
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function mapOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}
