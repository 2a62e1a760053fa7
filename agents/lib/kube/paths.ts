/** Where the objects are, and which of them are ours. */

const LABEL = 'app.kubernetes.io/name=constellation-vpn,app.kubernetes.io/component';

export const SITE_LABEL = 'constellation-vpn.io/site';
export const IP_MASQ_AGENT = 'ip-masq-agent';
export const CILIUM_CONFIG = 'cilium-config';

export const podsPath = (namespace: string): string => `/api/v1/namespaces/${namespace}/pods`;
export const eventsPath = (namespace: string): string => `/api/v1/namespaces/${namespace}/events`;
export const configMapsPath = (namespace: string): string => `/api/v1/namespaces/${namespace}/configmaps`;
export const endpointsPath = (namespace: string): string =>
  `/apis/cilium.io/v2/namespaces/${namespace}/ciliumendpoints`;

/** The pods of one component: frontend, routing, endpoint-sync. */
export const ofComponent = (component: string): { labelSelector: string } => ({
  labelSelector: `${LABEL}=${component}`,
});

/** RBAC knows a watch of one object by this. */
export const called = (name: string): { fieldSelector: string } => ({ fieldSelector: `metadata.name=${name}` });
