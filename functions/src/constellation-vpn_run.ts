import { main } from '../lib/run.ts';
import { NAME, constellationVpn, usage } from './constellation-vpn.ts';

void main({ name: NAME, usage, transform: constellationVpn });
