/** The registry a `docker login` means: Docker's clients still send the address of 2013 for Docker Hub. */
export function registryOfServerAddress(serverAddress: string): string {
  const host = serverAddress.replace(/^https?:\/\//, '').split('/', 1)[0] ?? '';
  return host === '' || host === 'index.docker.io' || host === 'registry-1.docker.io' ? 'docker.io' : host;
}
