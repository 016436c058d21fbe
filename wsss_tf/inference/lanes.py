"""Eight float32 numbers in one register, for code that numba compiles.

Numba vectorises loops over arrays, but not a row of eight that is read at an index, added to and
written back, which is all that the permutohedral lattice does. `LANES` is that row as a value:

    total = fill(np.float32(0))
    for r in range(6):
        total = scaled_sum(weights[r], load(values, 8 * offsets[r]), total)
    store(out, 0, total)

All functions here are for compiled code only. Where a processor has narrower registers, LLVM takes
two or more of them.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

WIDTH = 8

_FLOATS = ir.VectorType(ir.FloatType(), WIDTH)
_INTS = ir.VectorType(ir.IntType(32), WIDTH)
_UNDEFINED = ir.Constant(_FLOATS, ir.Undefined)
# Coefficients of 2 ^ x on [-0.5, 0.5], highest power first: Taylor's, and so right to 2e-8.
_EXP2 = tuple(float(np.log(2) ** n / np.prod(np.arange(1.0, n + 1))) for n in range(7, -1, -1))
# Adding and subtracting it rounds to a whole number.
_ROUNDING = 1.5 * 2.0**23


class _Lanes(types.Type):
    def __init__(self):
        super().__init__(name=f"Float32x{WIDTH}")


LANES = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _FLOATS)


@intrinsic
def load(context, array, index):
    """Return the eight numbers of a flat float32 array from `index` on."""

    def code(context, builder, signature, args):
        return builder.load(_pointer(context, builder, signature.args[0], *args), align=4)

    return LANES(array, types.intp), code


@intrinsic
def store(context, array, index, lanes):
    """Write eight numbers into a flat float32 array from `index` on."""

    def code(context, builder, signature, args):
        place = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES), code


@intrinsic
def fill(context, number):
    """Return a float32 number eight times."""

    def code(context, builder, signature, args):
        return _filled(builder, args[0])

    return LANES(types.float32), code


@intrinsic
def scaled_sum(context, factor, x, y):
    """Return factor * x + y; `factor` is a float32 number."""

    def code(context, builder, signature, args):
        return _multiply_add(builder, _filled(builder, args[0]), args[1], args[2])

    return LANES(types.float32, LANES, LANES), code


def _by_lane(operation):
    @intrinsic
    def function(context, x, y):
        def code(context, builder, signature, args):
            return operation(builder, *args)

        return LANES(LANES, LANES), code

    return function


def _greater(builder, x, y):
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


add = _by_lane(lambda builder, x, y: builder.fadd(x, y))
divide = _by_lane(lambda builder, x, y: builder.fdiv(x, y))
maximum = _by_lane(_greater)


@_by_lane
def exp_of_difference(builder, x, y):
    """exp(x - y) for x <= y, relative error 1e-7, and 0 below 2 ^ -60."""
    log2e = _constant(1 / np.log(2))
    power = builder.fmul(builder.fsub(x, y), log2e)
    # What is made of smaller numbers may be denormal, which processors take a hundred times as
    # long for.
    is_small = builder.fcmp_ordered("<", power, _constant(-60))
    power = builder.select(is_small, _constant(0), power)
    rounding = _constant(_ROUNDING)
    whole = builder.fsub(builder.fadd(power, rounding), rounding)
    part = builder.fsub(power, whole)
    result = _constant(_EXP2[0])
    for coefficient in _EXP2[1:]:
        result = _multiply_add(builder, result, part, _constant(coefficient))
    # A float32's exponent is 8 bits above its 23 of mantissa, 127 for 1.
    exponent = builder.add(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [127] * WIDTH))
    factor = builder.shl(exponent, ir.Constant(_INTS, [23] * WIDTH))
    result = builder.fmul(result, builder.bitcast(factor, _FLOATS))
    return builder.select(is_small, _constant(0), result)


def _over_lanes(operation):
    @intrinsic
    def function(context, x, halves):
        def code(context, builder, signature, args):
            x, halves = args
            for step in (1, 2):
                x = operation(builder, x, _neighbour(builder, x, step))
            whole = operation(builder, x, _neighbour(builder, x, 4))
            return builder.select(halves, x, whole)

        return LANES(LANES, types.boolean), code

    return function


# Of all eight lanes, or of each four by itself where `halves`; the result is in every lane.
max_over_lanes = _over_lanes(_greater)
sum_over_lanes = _over_lanes(lambda builder, x, y: builder.fadd(x, y))


def _neighbour(builder, x, step):
    order = [lane ^ step for lane in range(WIDTH)]
    return builder.shuffle_vector(x, _UNDEFINED, ir.Constant(_INTS, order))


def _multiply_add(builder, a, b, c):
    one_rounding = ("contract",)
    return builder.fadd(builder.fmul(a, b, flags=one_rounding), c, flags=one_rounding)


def _constant(number):
    return ir.Constant(_FLOATS, [float(np.float32(number))] * WIDTH)


def _filled(builder, number):
    first = builder.insert_element(_UNDEFINED, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, _UNDEFINED, ir.Constant(_INTS, [0] * WIDTH))


def _pointer(context, builder, array_type, array, index):
    data = make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())
