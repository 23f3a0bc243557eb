import type { SystemInfo } from '../../engine/engine.ts';
import { engineVersionText, type ProductVersion } from '../api-context.ts';

/** `/info`. Source of the fields: moby api/docs/v1.51.yaml, definition SystemInfo; what is ours stands in `Bulkhead`. */
export function encodeInfo(version: ProductVersion, info: SystemInfo): Record<string, unknown> {
  const engineVersion = engineVersionText(version);
  return {
    ID: info.id,
    Containers: info.containers.total,
    ContainersRunning: info.containers.running,
    ContainersPaused: info.containers.paused,
    ContainersStopped: info.containers.stopped,
    Images: info.images,
    Driver: 'overlay2',
    DriverStatus: [['Layer Format', 'erofs']],
    Plugins: { Volume: [], Network: ['bridge', 'null'], Authorization: null, Log: ['json-file', 'none'] },
    MemoryLimit: true,
    SwapLimit: false,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    CPUSet: true,
    PidsLimit: true,
    IPv4Forwarding: true,
    Debug: false,
    NFd: 0,
    OomKillDisable: false,
    NGoroutines: 0,
    SystemTime: new Date().toISOString(),
    LoggingDriver: 'json-file',
    CgroupDriver: 'cgroupfs',
    CgroupVersion: String(info.cgroupVersion),
    NEventsListener: 0,
    KernelVersion: info.kernelVersion,
    OperatingSystem: info.operatingSystem,
    OSVersion: '',
    OSType: 'linux',
    Architecture: 'x86_64',
    IndexServerAddress: 'https://index.docker.io/v1/',
    RegistryConfig: encodeRegistries(info),
    NCPU: info.cpus,
    MemTotal: info.memoryBytes,
    GenericResources: null,
    DockerRootDir: info.dataRoot,
    HttpProxy: '',
    HttpsProxy: '',
    NoProxy: '',
    Name: info.hostName,
    Labels: info.labels,
    ExperimentalBuild: false,
    ServerVersion: engineVersion,
    Runtimes: encodeRuntimes(info),
    DefaultRuntime: info.defaultIsolation,
    Swarm: {
      NodeID: '',
      NodeAddr: '',
      LocalNodeState: 'inactive',
      ControlAvailable: false,
      Error: '',
      RemoteManagers: null,
    },
    LiveRestoreEnabled: true,
    Isolation: info.defaultIsolation,
    InitBinary: '',
    ContainerdCommit: { ID: '' },
    RuncCommit: { ID: '' },
    InitCommit: { ID: '' },
    SecurityOptions: info.allowedIsolations.map((isolation) => `name=isolation,wall=${isolation}`),
    CDISpecDirs: [],
    Warnings: info.warnings.length > 0 ? info.warnings : null,
    Bulkhead: {
      version: version.bulkhead,
      defaultIsolation: info.defaultIsolation,
      allowedIsolations: info.allowedIsolations,
      accelerator: info.accelerator,
      machineDriver: info.machineDriver,
      machinePool: info.machinePool ?? null,
    },
  };
}

/** The walls are the runtimes; `runc` is the os wall's under its usual name. */
function encodeRuntimes(info: SystemInfo): Record<string, unknown> {
  const vm = { vm: { path: info.machineDriver, status: { accelerator: info.accelerator } } };
  const os = { os: { path: 'runc' }, runc: { path: 'runc' } };
  return {
    ...(info.allowedIsolations.includes('vm') ? vm : {}),
    ...(info.allowedIsolations.includes('os') ? os : {}),
  };
}

function encodeRegistries(info: SystemInfo): Record<string, unknown> {
  const insecure = info.insecureRegistries.map((name) => [
    name,
    { Name: name, Mirrors: [], Secure: false, Official: false },
  ]);
  return {
    InsecureRegistryCIDRs: ['::1/128', '127.0.0.0/8'],
    IndexConfigs: {
      'docker.io': { Name: 'docker.io', Mirrors: info.registryMirrors, Secure: true, Official: true },
      ...Object.fromEntries(insecure),
    },
    Mirrors: info.registryMirrors.length > 0 ? info.registryMirrors : null,
  };
}
