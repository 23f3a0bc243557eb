/** Credentials for one registry, as they go to the daemon. */
export interface RegistryAuth {
  readonly username?: string;
  readonly password?: string;
  readonly identitytoken?: string;
  readonly registrytoken?: string;
  readonly serveraddress?: string;
}

/** The `X-Registry-Auth` header: base64url of the JSON. */
export function encodeRegistryAuth(auth: RegistryAuth | undefined): Record<string, string> {
  if (auth === undefined) return {};
  // Go's decoder of the daemon wants the padding that Node leaves out.
  const encoded = Buffer.from(JSON.stringify(auth)).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
  return { 'x-registry-auth': encoded };
}
