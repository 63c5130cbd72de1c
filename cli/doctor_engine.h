/* `sluice doctor spark|hive|flink --conf FILE`: the exit code. argv[0] is the engine's name. */
#ifndef SLUICE_CLI_DOCTOR_ENGINE_H
#define SLUICE_CLI_DOCTOR_ENGINE_H

#include "engine_advice.h"

int doctor_engine(int argc, char **argv);

#endif
