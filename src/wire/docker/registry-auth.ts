import { z } from 'zod';
import { parseJson } from '../../core/json.ts';

/** `X-Registry-Auth` and the body of `POST /auth`. Source: moby api/types/registry/authconfig.go. */
const authConfigSchema = z.looseObject({
  username: z.string().nullish(),
  password: z.string().nullish(),
  /** base64 of `user:password`, from old clients. */
  auth: z.string().nullish(),
  identitytoken: z.string().nullish(),
  registrytoken: z.string().nullish(),
});

export interface RegistryAuth {
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly identityToken?: string | undefined;
  readonly registryToken?: string | undefined;
}

/**
 * The credentials a client sends with a pull or push: base64url of JSON. Padding may be missing and some clients use plain base64 (Node
 * decodes all of these). What cannot be read counts as anonymous, as in Docker. Undefined where there are none.
 */
export function decodeRegistryAuth(header: string | undefined): RegistryAuth | undefined {
  if (header === undefined || header === '') return undefined;
  const parsed = authConfigSchema.safeParse(parseJson(Buffer.from(header, 'base64').toString('utf8')));
  if (!parsed.success) return undefined;
  const credentials = credentialsOf(parsed.data);
  return Object.values(credentials).every((value) => value === undefined) ? undefined : credentials;
}

/** The body of `POST /auth`. */
export const registryLoginSchema = authConfigSchema
  .extend({ serveraddress: z.string().nullish() })
  .transform((config) => ({ serverAddress: config.serveraddress ?? '', credentials: credentialsOf(config) }));

function credentialsOf(config: z.infer<typeof authConfigSchema>): RegistryAuth {
  const { username, password, auth, identitytoken, registrytoken } = config;
  const [authUser, ...authPassword] = Buffer.from(auth ?? '', 'base64')
    .toString('utf8')
    .split(':');
  return {
    username: username || authUser || undefined,
    password: password || authPassword.join(':') || undefined,
    identityToken: identitytoken || undefined,
    registryToken: registrytoken || undefined,
  };
}
