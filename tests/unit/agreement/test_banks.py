"""Free fields and our numbers of each bank, against published slips.

Sources of the digits: the specifications of kivanio/brcobranca (spec/brcobranca/boleto) and the tests of
BoletoNet/boleto2net (Boleto2.Net.Testes).
"""

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import banks, boleto, payments
from servicekit import errors

SLIPS = [
    # bank, account fields, running number, due date, centavos, printed our number, barcode, typeable line
    (
        {"bank": "001", "branch": "4042", "account": "00061900", "wallet": "18", "agreement": "12387989"},
        777_700_168,
        "2008-02-01",
        13_500,
        "12387989777700168-7",
        "00193376900000135000000001238798977770016818",
        "00190.00009 01238.798977 77700.168188 3 37690000013500",
    ),
    (
        {"bank": "001", "branch": "4042", "account": "00061900", "wallet": "18", "agreement": "12387989"},
        7_700_168,
        "2008-02-02",
        13_500,
        "12387989007700168-7",
        "00193377000000135000000001238798900770016818",
        "00190.00009 01238.798902 07700.168185 3 37700000013500",
    ),
    (
        {"bank": "001", "branch": "4042", "account": "00061900", "wallet": "18", "agreement": "1238798"},
        7_777_700_168,
        "2008-02-03",
        72_356,
        "12387987777700168",
        "00195377100000723560000001238798777770016818",
        "00190.00009 01238.798779 77700.168188 5 37710000072356",
    ),
    (
        {"bank": "001", "branch": "4042", "account": "00061900", "wallet": "18", "agreement": "123879"},
        1_234,
        "2008-02-01",
        13_500,
        None,
        "00192376900000135001238790123440420006190018",
        "00191.23876 90123.440423 00061.900189 2 37690000013500",
    ),
    (
        {"bank": "001", "branch": "4042", "account": "00061900", "wallet": "18", "agreement": "1238"},
        123_456,
        "2008-02-01",
        13_500,
        None,
        "00191376900000135001238012345640420006190018",
        "00191.23801 12345.640424 00061.900189 1 37690000013500",
    ),
    (
        {"bank": "341", "branch": "0810", "account": "53678", "wallet": "175"},
        12_345_678,
        "2009-08-14",
        0,
        "175/12345678-4",
        "34191432900000000001751234567840810536789000",
        "34191.75124 34567.840813 05367.890000 1 43290000000000",
    ),
    (
        {"bank": "341", "branch": "0810", "account": "53678", "wallet": "175"},
        258_281,
        "2008-02-02",
        13_500,
        "175/00258281-7",
        "34191377000000135001750025828170810536789000",
        "34191.75009 25828.170818 05367.890000 1 37700000013500",
    ),
    (
        {"bank": "341", "branch": "1248", "account": "02124", "wallet": "109"},
        10_152,
        "2029-05-20",
        675_787,
        "109/00010152-7",
        "34194254800006757871090001015271248021246000",
        "34191.09008 01015.271248 80212.460002 4 25480000675787",
    ),
    (
        {"bank": "237", "branch": "1172", "account": "0403005", "wallet": "06"},
        75_896_452,
        "2009-04-30",
        295_295,
        None,
        "23795422300002952951172060007589645204030050",
        "23791.17209 60007.589645 52040.300502 5 42230000295295",
    ),
    (
        {"bank": "237", "branch": "4042", "account": "0061900", "wallet": "03"},
        777_700_168,
        "2008-02-02",
        13_500,
        None,
        "23791377000000135004042030077770016800619000",
        "23794.04201 30077.770011 68006.190000 1 37700000013500",
    ),
    (
        {"bank": "033", "branch": "0059", "wallet": "102", "agreement": "1899775"},
        90_000_267,
        "2011-10-09",
        2_500,
        None,
        "03398511500000025009189977500009000026700102",
        "03399.18997 77500.009004 00267.001022 8 51150000002500",
    ),
    (
        {"bank": "033", "branch": "0059", "wallet": "102", "agreement": "1899775"},
        90_002_720,
        "2012-09-08",
        5_400,
        "000090002720-7",
        "03399545000000054009189977500009000272070102",
        "03399.18997 77500.009004 02720.701024 9 54500000005400",
    ),
    (
        {"bank": "033", "branch": "1234", "wallet": "101", "agreement": "1234567"},
        13_724,
        "2016-09-02",
        29_746,
        None,
        "03394690500000297469123456700000001372430101",
        "03399.12347 56700.000005 13724.301018 4 69050000029746",
    ),
    (
        {"bank": "104", "branch": "1234", "wallet": "14", "agreement": "123456"},
        6,
        "2017-01-05",
        50_000,
        "14000000000000006-5",
        "10491703000000500001234560000100040000000064",
        "10491.23456 60000.100044 00000.000646 1 70300000050000",
    ),
    (
        {"bank": "104", "branch": "1234", "wallet": "14", "agreement": "123456"},
        9,
        "2017-03-31",
        80_000,
        "14000000000000009-0",
        "10497711500000800001234560000100040000000099",
        "10491.23456 60000.100044 00000.000992 7 71150000080000",
    ),
    (
        {"bank": "756", "branch": "4327", "wallet": "101", "agreement": "0229385"},
        2,
        "2016-02-18",
        5_000,
        "0000002-4",
        "75692670800000050001432701022938500000024001",
        "75691.43279 01022.938508 00000.240010 2 67080000005000",
    ),
    (
        {"bank": "756", "branch": "4134", "wallet": "105", "agreement": "0148180"},
        110,
        "2017-04-15",
        23_500,
        "0000110-4",
        "75694713000000235001413405014818000001104001",
        "75691.41349 05014.818008 00011.040011 4 71300000023500",
    ),
    (
        {"bank": "756", "branch": "4277", "wallet": "101", "agreement": "0172278"},
        12_349,
        "2016-12-28",
        401_124,
        "0012349-2",
        "75697702200004011241427701017227800123492001",
        "75691.42776 01017.227800 01234.920013 7 70220000401124",
    ),
    (
        {"bank": "748", "branch": "0710", "account": "00129", "wallet": "1", "agreement": "65"},
        8_879,
        "2016-08-22",
        19_557,
        "16/208879-3",
        "74891689400000195571116208879307106500129101",
        "74891.11620 08879.307109 65001.291015 1 68940000019557",
    ),
    (
        {"bank": "748", "branch": "0710", "account": "00129", "wallet": "1", "agreement": "65"},
        9_048,
        "2016-08-26",
        22_200,
        None,
        "74898689800000222001116209048807106500129103",
        "74891.11620 09048.807102 65001.291031 8 68980000022200",
    ),
    (
        {"bank": "748", "branch": "0710", "account": "00129", "wallet": "3", "agreement": "65"},
        8_879,
        "2016-08-22",
        19_557,
        None,
        "74891689400000195573116208879307106500129105",
        "74893.11626 08879.307109 65001.291056 1 68940000019557",
    ),
    (
        {"bank": "041", "branch": "1102", "wallet": "2", "agreement": "9000150"},
        22_832_563,
        "2015-06-26",
        127_890,
        "22832563-51",
        "04191647100001278902111029000150228325634059",
        "04192.11107 29000.150226 83256.340593 1 64710000127890",
    ),
    (
        {"bank": "041", "branch": "0016", "wallet": "2", "agreement": "0164640"},
        3_408_099,
        "2017-01-12",
        121_600,
        None,
        "04192703700001216002100160164640034080994027",
        "04192.10018 60164.640033 40809.940279 2 70370000121600",
    ),
    (
        {"bank": "041", "branch": "0340", "wallet": "2", "agreement": "1234560"},
        458,
        "2016-10-01",
        27_615,
        "00000458-02",
        "04191693400000276152103401234560000004584090",
        "04192.10349 01234.560009 00045.840907 1 69340000027615",
    ),
]


@pytest.mark.feature("S5-26")
@pytest.mark.parametrize(("fields", "number", "due", "minor", "printed", "code", "line"), SLIPS)
def test_standard_4_1_a_published_slip(fields, number, due, minor, printed, code, line):
    account, date = banks.Account(**fields), datetime.date.fromisoformat(due)
    bank = banks.of(account.bank)
    ours = bank.our_number(account, number, date)
    slip = boleto.Slip(
        bank=account.bank, due_date=date, amount_minor=minor, free_field=bank.free_field(account, ours)
    )
    assert boleto.barcode(slip) == code
    assert boleto.typeable_line(code) == line
    assert boleto.barcode_of_line(line) == code
    assert boleto.decode(code, today=date) == slip
    if printed is not None:
        assert ours.printed == printed


def test_standard_4_1_every_bank_has_a_published_slip():
    assert {fields["bank"] for fields, *_ in SLIPS} == set(banks.BANKS)


@pytest.mark.parametrize(
    ("fields", "number", "printed"),
    [
        ({"bank": "237", "branch": "4042", "account": "0061900", "wallet": "06"}, 525, "06/00000000525-P"),
        ({"bank": "237", "branch": "4042", "account": "0061900", "wallet": "09"}, 1, "09/00000000001-1"),
        ({"bank": "237", "branch": "4042", "account": "0061900", "wallet": "19"}, 1, "19/00000000001-P"),
        ({"bank": "237", "branch": "4042", "account": "0061900", "wallet": "19"}, 2, "19/00000000002-8"),
        ({"bank": "237", "branch": "4042", "account": "0061900", "wallet": "19"}, 6, "19/00000000006-0"),
        (
            {"bank": "033", "branch": "0059", "wallet": "102", "agreement": "1899775"},
            566612457800,
            "566612457800-2",
        ),
        (
            {"bank": "033", "branch": "0059", "wallet": "102", "agreement": "1899775"},
            1961005,
            "000001961005-0",
        ),
        ({"bank": "041", "branch": "1102", "wallet": "2", "agreement": "9000150"}, 9274, "00009274-22"),
        ({"bank": "041", "branch": "1102", "wallet": "2", "agreement": "9000150"}, 9194, "00009194-38"),
        ({"bank": "104", "branch": "1825", "wallet": "14", "agreement": "245274"}, 1, "14000000000000001-4"),
        (
            {"bank": "001", "branch": "4042", "account": "00061900", "wallet": "18", "agreement": "12387989"},
            719,
            "12387989000000719-2",
        ),
    ],
)
def test_our_number_as_printed(fields, number, printed):
    account = banks.Account(**fields)
    assert banks.of(account.bank).our_number(account, number, datetime.date(2026, 11, 22)).printed == printed


def test_sicoob_check_digits_one_to_thirteen():
    account = banks.Account(bank="756", branch="4327", wallet="101", agreement="0229385")
    bank, date = banks.of("756"), datetime.date(2016, 2, 16)
    assert [bank.our_number(account, n, date).check for n in range(1, 14)] == list("7419630853085")


def test_sicredi_numbers_start_again_each_year_and_run_through_the_bytes():
    account = banks.Account(bank="748", branch="0165", account="00623", wallet="1", agreement="02")
    bank = banks.of("748")
    assert bank.our_number(account, 3, datetime.date(2007, 8, 26)).printed == "07/200003-1"
    assert bank.our_number(account, 99_999, datetime.date(2026, 1, 1)).digits == "26299999"
    assert bank.our_number(account, 100_000, datetime.date(2026, 1, 1)).digits == "26300001"
    assert bank.our_number(account, 799_992, datetime.date(2026, 1, 1)).digits == "26999999"
    assert bank.series(datetime.date(2026, 12, 31)) != bank.series(datetime.date(2027, 1, 1))
    with pytest.raises(banks.OurNumbersUsedUp):
        bank.our_number(account, 799_993, datetime.date(2026, 1, 1))


@pytest.mark.parametrize(
    ("fields", "printed"),
    [
        (SLIPS[0][0], "4042-8 / 00061900-0"),
        (SLIPS[9][0], "4042-8 / 0061900-0"),
        ({"bank": "237", "branch": "0121", "account": "0301357", "wallet": "06"}, "0121-P / 0301357-P"),
        ({"bank": "341", "branch": "0811", "account": "53678", "wallet": "109"}, "0811 / 53678-8"),
        ({"bank": "104", "branch": "2030", "wallet": "14", "agreement": "654321"}, "2030 / 654321-9"),
        (SLIPS[15][0], "4327 / 0229385"),
        (
            {"bank": "748", "branch": "1234", "account": "12345", "wallet": "1", "agreement": "18"},
            "1234.18.12345",
        ),
    ],
)
def test_payee_as_printed(fields, printed):
    account = banks.Account(**fields)
    assert banks.of(account.bank).payee(account) == printed


@st.composite
def accounts(draw):
    """A right account of any bank."""
    bank = draw(st.sampled_from(list(banks.BANKS.values())))
    fields = {
        field: draw(
            st.sampled_from(sorted(lengths)).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n))
        )
        for field, lengths in bank.fields.items()
    }
    if bank.wallets:
        fields["wallet"] = draw(st.sampled_from(sorted(bank.wallets)))
    return banks.Account(bank=bank.code, **fields)


@given(
    account=accounts(),
    data=st.data(),
    due=st.dates(datetime.date(2010, 1, 1), datetime.date(2080, 1, 1)),
    minor=st.integers(1, boleto.MAX_AMOUNT_MINOR),
)
def test_every_number_of_every_bank_makes_a_slip_that_reads_back(account, data, due, minor):
    bank = banks.of(account.bank)
    number = data.draw(st.integers(1, bank.largest(account)))
    ours = bank.our_number(account, number, due)
    free = bank.free_field(account, ours)
    assert re.fullmatch("[0-9]{25}", free)
    assert ours.digits.isdigit()
    assert bank.violations(account) == []
    code = boleto.barcode(boleto.Slip(bank=account.bank, due_date=due, amount_minor=minor, free_field=free))
    assert boleto.barcode_of_line(boleto.typeable_line(code)) == code
    assert boleto.decode(code, today=due).free_field == free


@given(account=accounts(), data=st.data())
def test_two_numbers_never_give_one_slip(account, data):
    bank, date = banks.of(account.bank), datetime.date(2026, 11, 22)
    first, second = data.draw(
        st.lists(st.integers(1, bank.largest(account)), min_size=2, max_size=2, unique=True)
    )
    one, other = bank.our_number(account, first, date), bank.our_number(account, second, date)
    assert one.digits != other.digits
    assert bank.free_field(account, one) != bank.free_field(account, other)


@given(account=accounts(), data=st.data())
def test_a_payment_names_a_slip_however_its_number_is_written(account, data):
    bank = banks.of(account.bank)
    number = data.draw(st.integers(1, min(bank.largest(account), 10**10)))
    ours = bank.our_number(account, number, datetime.date(2026, 11, 22))
    plain = ours.digits.lstrip("0")
    for written in (ours.digits, plain, ours.printed):
        assert payments.plain_our_number(written) == plain


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("00010152", "10152"),
        ("109/00010152-7", "10152"),
        ("109000101527", "10152"),
        ("06/00000000525-P", "525"),
        ("16/208879-3", "16208879"),
        ("90150 123 123 451", "90150123123451"),
        ("", ""),
        ("x1", ""),
        ("１２", ""),
        ("1" * 21, ""),
    ],
)
def test_our_number_as_others_write_it(written, plain):
    assert payments.plain_our_number(written) == plain


@given(account=accounts(), data=st.data())
def test_a_wrong_field_is_named_with_what_is_expected(account, data):
    bank = banks.of(account.bank)
    field = data.draw(st.sampled_from(sorted(bank.fields)))
    wrong = data.draw(st.sampled_from(["", "x", "12345678901", "１２３４"]))
    values = {name: getattr(account, name) for name in ("branch", "account", "wallet", "agreement")}
    with pytest.raises(errors.InvalidRequest) as refused:
        bank.our_number(
            banks.Account(bank=account.bank, **{**values, field: wrong}), 1, datetime.date(2026, 11, 22)
        )
    assert [one.field for one in refused.value.fields] == [field]
    assert "expected" in refused.value.fields[0].description


def test_a_field_the_bank_does_not_use_is_refused():
    account = banks.Account(bank="341", branch="1248", account="02124", wallet="109", agreement="1")
    assert [one.field for one in banks.of("341").violations(account)] == ["agreement"]


def test_a_wallet_whose_free_field_is_another_is_refused():
    account = banks.Account(bank="341", branch="1248", account="02124", wallet="198")
    assert [one.field for one in banks.of("341").violations(account)] == ["wallet"]


def test_an_unknown_bank_is_answered_with_those_known():
    with pytest.raises(errors.InvalidRequest) as refused:
        banks.of("999")
    assert "341 Itaú" in refused.value.fields[0].description


@pytest.mark.parametrize("number", [0, 100_000_000])
def test_a_number_outside_the_account_is_refused(number):
    account = banks.Account(bank="341", branch="1248", account="02124", wallet="109")
    with pytest.raises(banks.OurNumbersUsedUp):
        banks.of("341").our_number(account, number, datetime.date(2026, 11, 22))
