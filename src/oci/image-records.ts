import { parseDigest, type Digest } from '../core/digest.ts';
import { familiarRepository } from '../core/image-reference.ts';
import type { Database, Migration, SqlRow } from '../platform/database.ts';
import { imageConfigSchema, type ImageConfig } from '../wire/oci/image-config.ts';

export const imageMigrations: readonly Migration[] = [
  {
    name: 'images-1',
    sql: `
      CREATE TABLE image (
        id TEXT PRIMARY KEY,
        config TEXT NOT NULL,
        manifest_digest TEXT NOT NULL,
        parent TEXT,
        added_at_ms INTEGER NOT NULL,
        -- 1: removed by force while stopped containers use it; kept for them until the next sweep, shown to nobody.
        hidden INTEGER NOT NULL DEFAULT 0
      ) STRICT;
      CREATE TABLE image_layer (
        image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        digest TEXT NOT NULL,
        diff_id TEXT NOT NULL,
        media_type TEXT NOT NULL,
        blob_bytes INTEGER NOT NULL,
        image_bytes INTEGER NOT NULL,
        uncompressed_bytes INTEGER NOT NULL,
        PRIMARY KEY (image_id, position)
      ) STRICT;
      CREATE INDEX image_layer_digest ON image_layer (digest);
      CREATE INDEX image_layer_diff_id ON image_layer (diff_id);
      CREATE TABLE image_tag (
        repository TEXT NOT NULL,
        tag TEXT NOT NULL,
        image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
        tagged_at_ms INTEGER NOT NULL,
        PRIMARY KEY (repository, tag)
      ) STRICT;
      CREATE TABLE image_repo_digest (
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
        PRIMARY KEY (repository, digest)
      ) STRICT;`,
  },
];

export interface ImageLayer {
  /** Of the blob as pulled. */
  readonly digest: Digest;
  /** Of the uncompressed tar: the name of the unpacked layer. */
  readonly diffId: Digest;
  readonly mediaType: string;
  readonly blobBytes: number;
  /** Size of the unpacked, mountable image. */
  readonly imageBytes: number;
  readonly uncompressedBytes: number;
}

export interface ImageRecord {
  /** Digest of the configuration: Docker's image ID. */
  readonly id: Digest;
  readonly config: ImageConfig;
  /** Manifest this image is pushed with. */
  readonly manifestDigest: Digest;
  readonly parent?: Digest;
  /** Lowest first. */
  readonly layers: readonly ImageLayer[];
  /** Familiar, `alpine:3`. */
  readonly repoTags: readonly string[];
  /** Familiar, `alpine@sha256:…`. */
  readonly repoDigests: readonly string[];
  /** Sum of the layers' uncompressed sizes: Docker's `Size`. */
  readonly sizeBytes: number;
  /** When it was last pulled, loaded, built or tagged here. */
  readonly lastTaggedAtMs: number;
}

export interface NewImage {
  readonly id: Digest;
  /** The configuration's bytes as text. */
  readonly configJson: string;
  readonly manifestDigest: Digest;
  readonly parent?: Digest;
  readonly layers: readonly ImageLayer[];
}

export interface TagName {
  /** Whole name: `docker.io/library/alpine`. */
  readonly repository: string;
  readonly tag: string;
}

export interface RepoDigestName {
  readonly repository: string;
  readonly digest: Digest;
}

/** Rows of images. Synchronous, so that a caller's transaction is never interleaved. */
export class ImageRecords {
  readonly #database: Database;
  readonly #now: () => number;
  readonly #configs = new Map<string, ImageConfig>();

  constructor(database: Database, now: () => number) {
    this.#database = database;
    this.#now = now;
  }

  transaction<T>(body: () => T): T {
    return this.#database.transaction(body);
  }

  list(): ImageRecord[] {
    return this.#database
      .all('SELECT * FROM image WHERE hidden = 0 ORDER BY added_at_ms DESC, id')
      .map((row) => this.#record(row));
  }

  /** Also one that is hidden: containers still run from it. */
  get(id: Digest): ImageRecord | undefined {
    const row = this.#database.get('SELECT * FROM image WHERE id = ?', id);
    return row && this.#record(row);
  }

  isVisible(id: Digest): boolean {
    return this.#database.get('SELECT 1 AS found FROM image WHERE id = ? AND hidden = 0', id) !== undefined;
  }

  /** Visible images whose hex ID starts with `prefix` (hex digits only); two are enough to know it is ambiguous. */
  idsByPrefix(prefix: string): Digest[] {
    const rows = this.#database.all('SELECT id FROM image WHERE hidden = 0 AND id GLOB ? LIMIT 2', `sha256:${prefix}*`);
    return rows.map((row) => digestOf(row, 'id'));
  }

  hiddenIds(): Digest[] {
    return this.#database.all('SELECT id FROM image WHERE hidden = 1').map((row) => digestOf(row, 'id'));
  }

  childrenOf(id: Digest): Digest[] {
    return this.#database
      .all('SELECT id FROM image WHERE hidden = 0 AND parent = ?', id)
      .map((row) => digestOf(row, 'id'));
  }

  imageOfTag({ repository, tag }: TagName): Digest | undefined {
    const row = this.#database.get('SELECT image_id FROM image_tag WHERE repository = ? AND tag = ?', repository, tag);
    return row && digestOf(row, 'image_id');
  }

  imageOfRepoDigest({ repository, digest }: RepoDigestName): Digest | undefined {
    const row = this.#database.get(
      'SELECT image_id FROM image_repo_digest WHERE repository = ? AND digest = ?',
      repository,
      digest,
    );
    return row && digestOf(row, 'image_id');
  }

  tagsOf(id: Digest): TagName[] {
    const rows = this.#database.all(
      'SELECT repository, tag FROM image_tag WHERE image_id = ? ORDER BY repository, tag',
      id,
    );
    return rows.map((row) => ({ repository: String(row['repository']), tag: String(row['tag']) }));
  }

  repoDigestsOf(id: Digest): RepoDigestName[] {
    const sql = 'SELECT repository, digest FROM image_repo_digest WHERE image_id = ? ORDER BY repository, digest';
    return this.#database
      .all(sql, id)
      .map((row) => ({ repository: String(row['repository']), digest: digestOf(row, 'digest') }));
  }

  tagsOfRepository(repository: string): string[] {
    const rows = this.#database.all('SELECT tag FROM image_tag WHERE repository = ? ORDER BY tag', repository);
    return rows.map((row) => String(row['tag']));
  }

  /** Other repositories of a registry that are known to hold this blob: sources to mount it from. */
  repositoriesWithBlob(domain: string, digest: Digest): string[] {
    const sql = `SELECT DISTINCT d.repository AS repository FROM image_repo_digest d JOIN image_layer l ON l.image_id = d.image_id
      WHERE l.digest = ? AND substr(d.repository, 1, ?) = ? ORDER BY d.repository LIMIT 4`;
    const prefix = `${domain}/`;
    return this.#database.all(sql, digest, prefix.length, prefix).map((row) => String(row['repository']));
  }

  /** Adds the image, or makes a hidden one visible again. */
  add(image: NewImage): void {
    const { id, configJson, manifestDigest, parent, layers } = image;
    this.#database.run(
      `INSERT INTO image (id, config, manifest_digest, parent, added_at_ms) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET hidden = 0`,
      ...[id, configJson, manifestDigest, parent ?? null, this.#now()],
    );
    layers.forEach((layer, position) =>
      this.#database.run(
        'INSERT INTO image_layer VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING',
        ...[
          id,
          position,
          layer.digest,
          layer.diffId,
          layer.mediaType,
          layer.blobBytes,
          layer.imageBytes,
          layer.uncompressedBytes,
        ],
      ),
    );
  }

  setTag({ repository, tag }: TagName, id: Digest): void {
    this.#database.run(
      `INSERT INTO image_tag VALUES (?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET image_id = excluded.image_id, tagged_at_ms = excluded.tagged_at_ms`,
      ...[repository, tag, id, this.#now()],
    );
  }

  setRepoDigest({ repository, digest }: RepoDigestName, id: Digest): void {
    this.#database.run(
      'INSERT INTO image_repo_digest VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET image_id = excluded.image_id',
      ...[repository, digest, id],
    );
  }

  deleteTag({ repository, tag }: TagName): void {
    this.#database.run('DELETE FROM image_tag WHERE repository = ? AND tag = ?', repository, tag);
  }

  deleteRepoDigest({ repository, digest }: RepoDigestName): void {
    this.#database.run('DELETE FROM image_repo_digest WHERE repository = ? AND digest = ?', repository, digest);
  }

  delete(id: Digest): void {
    this.#database.run('DELETE FROM image WHERE id = ?', id);
    this.#configs.delete(id);
  }

  hide(id: Digest): void {
    this.#database.run('UPDATE image SET hidden = 1 WHERE id = ?', id);
  }

  referencedBlobs(): Set<Digest> {
    const rows = this.#database.all(
      `SELECT id AS digest FROM image UNION SELECT manifest_digest FROM image UNION SELECT digest FROM image_layer
       UNION SELECT digest FROM image_repo_digest`,
    );
    return new Set(rows.map((row) => digestOf(row, 'digest')));
  }

  referencedLayers(): Set<Digest> {
    return new Set(
      this.#database.all('SELECT DISTINCT diff_id FROM image_layer').map((row) => digestOf(row, 'diff_id')),
    );
  }

  /** What is known of a layer that some image has already. */
  layerByDiffId(diffId: Digest): ImageLayer | undefined {
    const row = this.#database.get('SELECT * FROM image_layer WHERE diff_id = ? LIMIT 1', diffId);
    return row && layerOf(row);
  }

  configJson(id: Digest): string | undefined {
    const row = this.#database.get('SELECT config FROM image WHERE id = ?', id);
    return row && String(row['config']);
  }

  #record(row: SqlRow): ImageRecord {
    const id = digestOf(row, 'id');
    const layers = this.#database
      .all('SELECT * FROM image_layer WHERE image_id = ? ORDER BY position', id)
      .map(layerOf);
    const tagged = this.#database.get('SELECT max(tagged_at_ms) AS at FROM image_tag WHERE image_id = ?', id)?.['at'];
    const parent = row['parent'];
    return {
      id,
      config: this.#config(id, String(row['config'])),
      manifestDigest: digestOf(row, 'manifest_digest'),
      ...(typeof parent === 'string' && { parent: parseDigest(parent) }),
      layers,
      repoTags: this.tagsOf(id).map(({ repository, tag }) => `${familiarRepository(repository)}:${tag}`),
      repoDigests: this.repoDigestsOf(id).map(
        ({ repository, digest }) => `${familiarRepository(repository)}@${digest}`,
      ),
      sizeBytes: layers.reduce((sum, layer) => sum + layer.uncompressedBytes, 0),
      lastTaggedAtMs: Number(tagged ?? row['added_at_ms']),
    };
  }

  #config(id: Digest, json: string): ImageConfig {
    const known = this.#configs.get(id);
    if (known) return known;
    const parsed = imageConfigSchema.parse(JSON.parse(json));
    this.#configs.set(id, parsed);
    return parsed;
  }
}

function digestOf(row: SqlRow, column: string): Digest {
  return parseDigest(String(row[column]), `${column} in the state file`);
}

function layerOf(row: SqlRow): ImageLayer {
  return {
    digest: digestOf(row, 'digest'),
    diffId: digestOf(row, 'diff_id'),
    mediaType: String(row['media_type']),
    blobBytes: Number(row['blob_bytes']),
    imageBytes: Number(row['image_bytes']),
    uncompressedBytes: Number(row['uncompressed_bytes']),
  };
}
