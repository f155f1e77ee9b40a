/** The header flags of what a client sends. */
import {
  HEADER_FLAG_COMMAND,
  HEADER_FLAG_ERROR,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
} from '../protocol/constants.js';

export const FLAGS_COMMAND = HEADER_FLAG_COMMAND;
export const FLAGS_POSTED = HEADER_FLAG_COMMAND | HEADER_FLAG_NO_REPLY;
export const FLAGS_REPLY = HEADER_FLAG_REPLY;
export const FLAGS_ERROR_REPLY = HEADER_FLAG_REPLY | HEADER_FLAG_ERROR;
