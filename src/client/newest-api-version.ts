/** The newest version of the Docker Engine API this client speaks. */
export const NEWEST_API_VERSION = '1.51';
