"""The mending of JSON on inputs that are not ours: those of RFC 8259 and of the JSON Parsing Test Suite (Nicolas Seriot), by its names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seawall import Guardrails
from seawall.errors import OutputShapeError
from seawall.guardrails import Shape

VALID = {
    "rfc8259 13 object": '{"Image": {"Width": 800, "Height": 600, "Title": "View from 15th Floor", "Animated": false, "IDs": [116, 943, 234]}}',
    "y_array_arraysWithSpaces": "[[]   ]",
    "y_array_empty-string": '[""]',
    "y_array_heterogeneous": '[null, 1, "1", {}]',
    "y_array_with_1_and_newline": "[1\n]",
    "y_number_0e+1": "[0e+1]",
    "y_number_minus_zero": "[-0]",
    "y_number_real_capital_e_neg_exp": "[1E-2]",
    "y_object_duplicated_key": '{"a":"b","a":"c"}',
    "y_object_empty_key": '{"":0}',
    "y_object_escaped_null_in_key": '{"foo\\u0000bar": 42}',
    "y_object_long_strings": '{"x":[{"id": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}], "id": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}',
    "y_string_accepted_surrogate_pair": '["\\uD801\\udc37"]',
    "y_string_allowed_escapes": '["\\"\\\\\\/\\b\\f\\n\\r\\t"]',
    "y_string_comments": '["a/*b*/c/*d//e"]',
    "y_string_in_array_with_leading_space": '[ "asd"]',
    "y_string_u+2028_line_sep": '["\u2028"]',
    "y_string_with_del_character": '["a\x7fa"]',
    "y_structure_lonely_string": '"asd"',
    "y_structure_lonely_int": "42",
    "y_structure_trailing_newline": '["a"]\n',
    "y_structure_whitespace_array": " [] ",
}
# What is meant, or `None` where it is in doubt or would have to be made up.
WRONG: dict[str, tuple[str, Any]] = {
    "n_array_extra_comma": ('["",]', [""]),
    "n_array_double_extra_comma": ('["x",,]', None),
    "n_array_just_comma": ("[,]", None),
    "n_array_missing_value": ('[   , ""]', None),
    "n_array_number_and_comma": ("[1,]", [1]),
    "n_array_unclosed": ('[""', [""]),
    "n_array_unclosed_with_object_inside": ("[{}", [{}]),
    "n_array_incomplete": ('["x"', ["x"]),
    "n_array_incomplete_invalid_value": ("[x", None),
    "n_array_inner_array_no_comma": ("[3[4]]", [3, [4]]),
    "n_array_newlines_unclosed": ('["a",\n4\n,1,', ["a", 4, 1]),
    "n_array_colon_instead_of_comma": ('["": 1]', None),
    "n_array_star_inside": ("[*]", None),
    "n_incomplete_true": ("[tru]", None),
    "n_incomplete_null": ("[nul]", None),
    "n_number_+1": ("[+1]", [1]),
    "n_number_.2e-3": ("[.2e-3]", [0.0002]),
    "n_number_2.e3": ("[2.e3]", None),
    "n_number_-01": ("[-01]", None),
    "n_number_0.1.2": ("[0.1.2]", None),
    "n_number_0x1": ("[0x1]", None),
    "n_number_1_000": ("[1 000.0]", None),
    "n_number_NaN": ("[NaN]", [None]),
    "n_number_infinity": ("[Infinity]", [None]),
    "n_number_minus_infinity": ("[-Infinity]", [None]),
    "n_number_with_leading_zero": ("[012]", None),
    "n_number_expression": ("[1+2]", None),
    "n_object_trailing_comma": ('{"id":0,}', {"id": 0}),
    "n_object_trailing_comment": ('{"a":"b"}/**/', {"a": "b"}),
    "n_object_trailing_comment_slash_open": ('{"a":"b"}//', {"a": "b"}),
    "n_object_unquoted_key": ('{a: "b"}', {"a": "b"}),
    "n_object_single_quote": ("{'a':0}", {"a": 0}),
    "n_object_unterminated-value": ('{"a":"a', None),
    "n_object_missing_value": ('{"a":', None),
    "n_object_missing_colon": ('{"a" b}', None),
    "n_object_missing_key": ('{:"b"}', None),
    "n_object_key_with_single_quotes": ("{key: 'value'}", {"key": "value"}),
    "n_object_several_trailing_commas": ('{"id":0,,,,,}', None),
    "n_object_with_trailing_garbage": ('{"a": true} "x"', {"a": True}),
    "n_object_non_string_key": ("{1:1}", None),
    "n_string_1_surrogate_then_escape_u": ('["\\uD800\\u"]', None),
    "n_string_unescaped_newline": ('["new\nline"]', ["new\nline"]),
    "n_string_unescaped_tab": ('["\t"]', ["\t"]),
    "n_string_invalid_backslash_esc": ('["\\a"]', ["\\a"]),
    "n_string_single_quote": ("['single quote']", ["single quote"]),
    "n_structure_double_array": ("[][]", None),
    "n_structure_object_followed_by_closing_object": ("{}}", {}),
    "n_structure_no_data": ("", None),
    "n_structure_open_array_comma": ("[,", None),
    "n_structure_trailing_#": ('{"a":"b"}#{}', None),
    "n_structure_unclosed_object": ('{"asd":"asd"', {"asd": "asd"}),
    "n_structure_100000_opening_arrays": ("[" * 100_000, None),
    "n_structure_open_array_object": ('[{"":' * 50_000, None),
}
RAILS = Guardrails(output=[Shape({}, repair=True)])


@pytest.mark.parametrize("name", VALID)
def test_what_is_json_is_left_as_it_is(name: str) -> None:
    assert RAILS.check_output(VALID[name]) == VALID[name]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_nearly_json_becomes_what_was_meant_or_stays_wrong(name: str) -> None:
    text, meant = WRONG[name]
    if meant is None:
        with pytest.raises(OutputShapeError):
            RAILS.check_output(text)
    else:
        assert json.loads(RAILS.check_output(text)) == meant
        with pytest.raises(OutputShapeError):
            Guardrails(output=[Shape({})]).check_output(text)
