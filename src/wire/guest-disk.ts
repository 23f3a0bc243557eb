/*
 * Disk images as the CLI, the daemon and the machine room speak of them. Sizes are bytes.
 */

/** What we make and take; each is a driver of qemu-img. */
export const DISK_FORMATS = ['qcow2', 'raw', 'vmdk', 'vdi', 'vhdx', 'vpc'] as const;
export type DiskFormat = (typeof DISK_FORMATS)[number];

export interface DiskSnapshot {
  readonly id: string;
  readonly name: string;
  /** Of the machine's memory within it; 0 is a snapshot of the disk alone. */
  readonly vmStateBytes: number;
  readonly createdAtMs: number;
}

/** One image of a chain. */
export interface DiskLayer {
  readonly path: string;
  readonly format: DiskFormat;
  /** As the guest sees it. */
  readonly virtualBytes: number;
  /** As the host's file system has it. */
  readonly actualBytes: number;
  readonly snapshots: readonly DiskSnapshot[];
  /** The image was not closed in order: a check is due. */
  readonly isDirty: boolean;
  readonly isCorrupt: boolean;
  /** Files beside the image itself that hold its data: extents of a VMDK, a data file of a qcow2. */
  readonly dataPaths: readonly string[];
}

/** An image, and what it stands on, nearest first. */
export interface DiskReport extends DiskLayer {
  readonly backing: readonly DiskLayer[];
  /** Who has it open now, as an error would name them. */
  readonly users: readonly string[];
}

export interface DiskCheck {
  readonly path: string;
  readonly corruptions: number;
  readonly leaks: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  /** Errors that kept the check from its end. */
  readonly checkErrors: number;
}

/** Percent, 0 to 100, as far as the program tells. */
export type DiskProgress = (percent: number) => void;

export interface DiskCallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Everything that can be done to a disk image; paths may be relative to the working directory. */
export interface DiskTools {
  readonly create: (
    path: string,
    spec: {
      readonly format: DiskFormat;
      /** May be left out with a base: then it is the base's. */
      readonly virtualBytes: number | undefined;
      readonly base?: { readonly path: string; readonly format: DiskFormat | undefined } | undefined;
      readonly preallocation?: 'off' | 'metadata' | 'falloc' | 'full' | undefined;
    },
    options?: DiskCallOptions,
  ) => Promise<DiskReport>;
  readonly info: (
    path: string,
    spec: { readonly format: DiskFormat | undefined },
    options?: DiskCallOptions,
  ) => Promise<DiskReport>;
  readonly resize: (
    path: string,
    spec: {
      readonly format: DiskFormat | undefined;
      readonly size: { readonly kind: 'absolute' | 'grow' | 'shrink'; readonly bytes: number };
      /** Both must be true for less than there is. */
      readonly shrink: boolean;
      readonly confirmed: boolean;
    },
    options?: DiskCallOptions,
  ) => Promise<DiskReport>;
  readonly convert: (
    source: string,
    target: string,
    spec: {
      readonly sourceFormat: DiskFormat | undefined;
      readonly targetFormat: DiskFormat;
      readonly compress: boolean;
      readonly onProgress?: DiskProgress | undefined;
    },
    options?: DiskCallOptions,
  ) => Promise<DiskReport>;
  readonly check: (
    path: string,
    spec: { readonly format: DiskFormat | undefined; readonly repair: 'none' | 'leaks' | 'all' },
    options?: DiskCallOptions,
  ) => Promise<DiskCheck>;
  readonly snapshot: (
    path: string,
    spec: {
      readonly format: DiskFormat | undefined;
      readonly action: 'create' | 'restore' | 'delete';
      readonly name: string;
    },
    options?: DiskCallOptions,
  ) => Promise<DiskReport>;
  readonly rebase: (
    path: string,
    spec: {
      readonly format: DiskFormat | undefined;
      /** Undefined makes the image stand on its own. */
      readonly base: { readonly path: string; readonly format: DiskFormat | undefined } | undefined;
      /** Only the reference is rewritten: the new base must have the old one's content. */
      readonly referenceOnly: boolean;
      readonly onProgress?: DiskProgress | undefined;
    },
    options?: DiskCallOptions,
  ) => Promise<DiskReport>;
  /** Writes what the image holds into its base, and empties it. */
  readonly commit: (
    path: string,
    spec: { readonly format: DiskFormat | undefined; readonly onProgress?: DiskProgress | undefined },
    options?: DiskCallOptions,
  ) => Promise<DiskReport>;
  readonly remove: (path: string, options?: DiskCallOptions) => Promise<void>;
}
