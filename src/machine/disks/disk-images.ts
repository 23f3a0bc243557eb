import { access, link, rm, unlink } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { randomBytes } from 'node:crypto';
import { EngineError, systemErrorCode } from '../../core/errors.ts';
import type { DiskCheck, DiskFormat, DiskLayer, DiskReport, DiskTools } from '../../wire/guest-disk.ts';
import { findChildren } from './image-children.ts';
import { findImageUsers } from './image-users.ts';
import { chainOf, filesOf, inspectImage, type InspectedImage } from './inspect-image.ts';
import {
  qemuImgCheck,
  qemuImgCommit,
  qemuImgConvert,
  qemuImgCreate,
  qemuImgInfo,
  qemuImgRebase,
  qemuImgResize,
  qemuImgSnapshot,
} from './qemu-img.ts';

export interface DiskImagesOptions {
  /** Directories that images may refer to beside their own, and that are searched for children. */
  readonly allowedDirectories: readonly string[];
}

/** A disk's size is a number of sectors. */
const SECTOR_BYTES = 512;

/**
 * Disk images on this host: looked at before anything opens them, and refused before anything is changed. Works on files with the rights of
 * whoever runs it; it needs no daemon.
 */
export class DiskImages implements DiskTools {
  readonly #allowedDirectories: readonly string[];

  constructor(options: DiskImagesOptions) {
    this.#allowedDirectories = options.allowedDirectories.map((path) => resolve(path));
  }

  create: DiskTools['create'] = async (path, spec, options = {}) => {
    const target = resolve(path);
    await this.#assertFree(target);
    if (spec.base && spec.format !== 'qcow2') {
      throw new EngineError('invalid-argument', `${path}: only a qcow2 image can stand on a base, not ${spec.format}`);
    }
    const base = spec.base && (await this.#inspect(spec.base.path, spec.base.format));
    const { virtualBytes } = spec;
    if (virtualBytes === undefined && !base) {
      throw new EngineError('invalid-argument', `${path}: a disk without a base needs a size, for example 10G`);
    }
    if (virtualBytes !== undefined) assertSize(path, virtualBytes);
    if (base && virtualBytes !== undefined) {
      const { virtualBytes: least } = await qemuImgInfo(base.path, base.format, options);
      if (virtualBytes < least) {
        throw new EngineError(
          'invalid-argument',
          `${path}: ${virtualBytes} bytes are less than the ${least} of its base ${base.path}, whose end would be cut off; ask for more or give no size`,
        );
      }
    }
    await this.#make(target, spec.format, async (partial) => {
      await qemuImgCreate(partial, { ...spec, base: base && { path: base.path, format: base.format } }, options);
    });
    return await this.#report(await this.#inspect(target, spec.format, base ? [dirname(base.path)] : []), options);
  };

  info: DiskTools['info'] = async (path, spec, options = {}) => {
    return await this.#report(await this.#inspect(path, spec.format), options);
  };

  resize: DiskTools['resize'] = async (path, spec, options = {}) => {
    const image = await this.#inspect(path, spec.format);
    const { virtualBytes: before, snapshots } = await qemuImgInfo(image.path, image.format, options);
    const { kind, bytes } = spec.size;
    const after = kind === 'absolute' ? bytes : kind === 'grow' ? before + bytes : before - bytes;
    assertSize(path, after);
    await this.#assertUnused(image.path, 'resized', [image]);
    await this.#assertNoChildren(image, 'resize');
    const isShrink = after < before;
    if (isShrink && !(spec.shrink && spec.confirmed)) {
      throw new EngineError(
        'invalid-argument',
        `${path} has ${before} bytes; making it ${after} destroys what is at its end. Shrink its partitions and file systems first, then give --shrink --yes`,
        { details: { before, after } },
      );
    }
    if (snapshots.length > 0 && isShrink) {
      throw new EngineError(
        'wrong-state',
        `${path} has snapshots (${snapshots.map(({ name }) => name).join(', ')}), which need its whole size; delete them first`,
      );
    }
    await qemuImgResize(image.path, image.format, { virtualBytes: after, shrink: isShrink }, options);
    return await this.#report(image, options);
  };

  convert: DiskTools['convert'] = async (source, target, spec, options = {}) => {
    const image = await this.#inspect(source, spec.sourceFormat);
    const path = resolve(target);
    await this.#assertFree(path);
    await this.#assertUnused(source, 'converted', chainOf(image), 'its copy would be a mixture of before and after');
    const { compress, onProgress } = spec;
    if (compress && spec.targetFormat !== 'qcow2') {
      throw new EngineError(
        'invalid-argument',
        `${target}: only qcow2 is written compressed, not ${spec.targetFormat}`,
      );
    }
    await this.#make(path, spec.targetFormat, async (partial) => {
      await qemuImgConvert(image, { path: partial, format: spec.targetFormat }, { compress, onProgress }, options);
    });
    return await this.#report(await this.#inspect(path, spec.targetFormat), options);
  };

  check: DiskTools['check'] = async (path, spec, options = {}): Promise<DiskCheck> => {
    const image = await this.#inspect(path, spec.format);
    if (image.format === 'raw' || image.format === 'vpc') {
      throw new EngineError(
        'unsupported',
        `${path}: an image of format ${image.format} has no structure to be checked`,
      );
    }
    if (spec.repair !== 'none' && image.format !== 'qcow2') {
      throw new EngineError('unsupported', `${path}: only qcow2 images can be repaired, not ${image.format}`);
    }
    await this.#assertUnused(path, 'checked', [image], 'a check of a changing image finds faults that are none');
    return await qemuImgCheck(image.path, image.format, spec.repair, options);
  };

  snapshot: DiskTools['snapshot'] = async (path, spec, options = {}) => {
    const image = await this.#inspect(path, spec.format);
    if (image.format !== 'qcow2') {
      throw new EngineError(
        'unsupported',
        `${path}: only qcow2 images have snapshots, not ${image.format}; convert it first: bulkhead disk convert -O qcow2`,
      );
    }
    const { snapshots } = await qemuImgInfo(image.path, image.format, options);
    const known = snapshots.filter(({ name }) => name === spec.name);
    if (spec.action === 'create' && known.length > 0) {
      throw new EngineError(
        'conflict',
        `${path} has a snapshot ${spec.name} already; choose another name or delete it`,
      );
    }
    if (spec.action !== 'create' && known.length === 0) {
      const names = snapshots.map(({ name }) => name).join(', ') || 'none';
      throw new EngineError('not-found', `${path} has no snapshot ${spec.name}; it has: ${names}`);
    }
    const done = { create: 'snapshotted', restore: 'set back', delete: 'rid of a snapshot' }[spec.action];
    await this.#assertUnused(path, done, [image]);
    if (spec.action === 'restore') await this.#assertNoChildren(image, 'set back');
    await qemuImgSnapshot(image.path, image.format, spec.action, spec.name, options);
    return await this.#report(image, options);
  };

  rebase: DiskTools['rebase'] = async (path, spec, options = {}) => {
    const image = await this.#inspect(path, spec.format);
    if (image.format !== 'qcow2') {
      throw new EngineError('unsupported', `${path}: only a qcow2 image has a base, this one is ${image.format}`);
    }
    const base = spec.base && (await this.#inspect(spec.base.path, spec.base.format));
    if (base && filesOf(base).includes(image.path)) {
      throw new EngineError('invalid-argument', `${path} cannot stand on ${base.path}, which stands on it`);
    }
    if (!base && spec.referenceOnly && image.backing) {
      throw new EngineError(
        'invalid-argument',
        `${path} would lose what is only in its base ${image.backing.path}; leave --reference-only away to copy it`,
      );
    }
    await this.#assertUnused(path, 'rebased', [image]);
    const { referenceOnly, onProgress } = spec;
    const target = base && { path: base.path, format: base.format };
    await qemuImgRebase(image.path, image.format, { base: target, referenceOnly, onProgress }, options);
    return await this.#report(await this.#inspect(path, image.format, base ? [dirname(base.path)] : []), options);
  };

  commit: DiskTools['commit'] = async (path, spec, options = {}) => {
    const image = await this.#inspect(path, spec.format);
    const base = image.backing;
    if (!base) throw new EngineError('wrong-state', `${path} stands on no base that it could be committed to`);
    await this.#assertUnused(path, 'committed', [image]);
    await this.#assertUnused(base.path, 'written to', [base]);
    const siblings = (await this.#children(base)).filter((child) => child !== image.path);
    if (siblings.length > 0) {
      throw new EngineError(
        'conflict',
        `committing ${path} changes its base ${base.path}, on which these stand too and would break: ${siblings.join(', ')}; ` +
          "make them independent first: bulkhead disk rebase --base '' IMAGE",
        { details: { siblings } },
      );
    }
    await qemuImgCommit(image.path, image.format, { onProgress: spec.onProgress }, options);
    return await this.#report(image, options);
  };

  remove: DiskTools['remove'] = async (path) => {
    const image = await this.#inspect(path, undefined);
    await this.#assertUnused(path, 'removed', [image]);
    await this.#assertNoChildren(image, 'remove');
    await unlink(image.path);
  };

  async #inspect(path: string, format: DiskFormat | undefined, more: readonly string[] = []): Promise<InspectedImage> {
    return await inspectImage(resolve(path), { format, allowedDirectories: [...this.#allowedDirectories, ...more] });
  }

  async #report(image: InspectedImage, options: { signal?: AbortSignal | undefined }): Promise<DiskReport> {
    const layers: DiskLayer[] = [];
    for (const one of chainOf(image)) {
      layers.push({ ...(await qemuImgInfo(one.path, one.format, options)), dataPaths: one.dataPaths });
    }
    const [own, ...backing] = layers;
    if (!own) throw new EngineError('internal', `${image.path} has no layers`);
    return { ...own, backing, users: await findImageUsers([image.path, ...image.dataPaths]) };
  }

  async #assertUnused(
    shown: string,
    done: string,
    images: readonly InspectedImage[],
    why = 'two writers destroy an image',
  ): Promise<void> {
    const users = await findImageUsers(images.flatMap((image) => [image.path, ...image.dataPaths]));
    if (users.length === 0) return;
    throw new EngineError(
      'conflict',
      `${shown} cannot be ${done} while it is used by ${users.join(' and ')}: ${why}; stop it first`,
      { details: { users } },
    );
  }

  async #children(image: InspectedImage): Promise<string[]> {
    return await findChildren([image.path, ...image.dataPaths], [dirname(image.path), ...this.#allowedDirectories]);
  }

  async #assertNoChildren(image: InspectedImage, verb: string): Promise<void> {
    const children = await this.#children(image);
    if (children.length === 0) return;
    throw new EngineError(
      'conflict',
      `cannot ${verb} ${image.path}: these images stand on it and would break: ${children.join(', ')}; ` +
        "remove them first, or make them independent: bulkhead disk rebase --base '' IMAGE",
      { details: { children } },
    );
  }

  async #assertFree(path: string): Promise<void> {
    try {
      await access(path);
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return;
      throw new EngineError('forbidden', `cannot write ${path}: ${systemErrorCode(error)}`, { cause: error });
    }
    throw new EngineError('conflict', `${path} exists already; remove it first: bulkhead disk remove ${path}`);
  }

  /** Under a name of its own until it is whole; what failed or was cancelled leaves nothing. */
  async #make(target: string, format: DiskFormat, make: (partial: string) => Promise<void>): Promise<void> {
    // A VMDK has its own file name in it, so it is written under that.
    const partial = format === 'vmdk' ? target : `${target}.${randomBytes(4).toString('hex')}.partial`;
    try {
      await make(partial);
      if (partial === target) return;
      // A link, unlike a renaming, never replaces what came to be meanwhile.
      await link(partial, target);
      await unlink(partial);
    } catch (error) {
      await rm(partial, { force: true });
      if (systemErrorCode(error) === 'EEXIST') await this.#assertFree(target);
      throw error;
    }
  }
}

function assertSize(path: string, bytes: number): void {
  if (Number.isSafeInteger(bytes) && bytes > 0 && bytes % SECTOR_BYTES === 0) return;
  throw new EngineError(
    'invalid-argument',
    `${path}: ${bytes} bytes is no disk size; it is a multiple of ${SECTOR_BYTES} and more than 0`,
  );
}
