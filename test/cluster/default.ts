/** The usual cluster, with the VPN once install.ts has installed it. */
import test from 'ava';
import { setUp } from './fixture.ts';

export const fixture = setUp(test);
