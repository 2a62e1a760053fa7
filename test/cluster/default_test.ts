/**
 * What is tested in the usual cluster, in this order: a cluster takes a minute, so there is one. Each file leaves it as the next
 * one needs it.
 */
import './install.ts';
import './ways.ts';
import './again.ts';
import './cilium-api.ts';
import './mistakes.ts';
import './life.ts';
