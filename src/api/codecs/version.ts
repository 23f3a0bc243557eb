import type { SystemInfo } from '../../engine/engine.ts';
import { engineVersionText, type ProductVersion } from '../api-context.ts';
import { MAXIMUM_API_VERSION, MINIMUM_API_VERSION } from '../api-version.ts';

/** `/version`. The docker CLI shows the components; libraries compare the outer `Version` with the least they accept. */
export function encodeVersion(version: ProductVersion, info: SystemInfo): Record<string, unknown> {
  const engineVersion = engineVersionText(version);
  return {
    Platform: { Name: 'Bulkhead' },
    Components: [
      {
        Name: 'Engine',
        Version: engineVersion,
        Details: {
          ApiVersion: MAXIMUM_API_VERSION,
          Arch: 'amd64',
          BuildTime: version.buildTime,
          Experimental: 'false',
          GitCommit: version.commit,
          GoVersion: '',
          KernelVersion: info.kernelVersion,
          MinAPIVersion: MINIMUM_API_VERSION,
          Os: 'linux',
        },
      },
      {
        Name: 'bulkhead',
        Version: version.bulkhead,
        Details: {
          GitCommit: version.commit,
          DefaultIsolation: info.defaultIsolation,
          Accelerator: info.accelerator,
          MachineDriver: info.machineDriver,
        },
      },
      { Name: 'node', Version: process.versions.node, Details: {} },
    ],
    Version: engineVersion,
    ApiVersion: MAXIMUM_API_VERSION,
    MinAPIVersion: MINIMUM_API_VERSION,
    GitCommit: version.commit,
    GoVersion: '',
    Os: 'linux',
    Arch: 'amd64',
    KernelVersion: info.kernelVersion,
    BuildTime: version.buildTime,
  };
}
