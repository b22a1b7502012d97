"""Who, when and where: taken out of a report's text by rule, in English, German and Spanish.

Lines that say nothing else go as a whole: "MRN 4711", "Dear Dr. Brown,", "Jane Brown, MD". Within a
sentence a gap marks what stood there, as in MIMIC-CXR: "compared to ___", "discussed with Dr. ___". Rules
know forms, not people: a name in a sentence without a title, a degree or a word such as "by" before it
stays, and so does a year alone.
"""

import re
from collections.abc import Callable

GAP = "___"

_LETTERS = [chr(code) for code in (*range(0x250), *range(0x370, 0x530), *range(0x1E00, 0x2000))]
_UP = re.escape("".join(letter for letter in _LETTERS if letter.isupper()))
"""Capitals of Latin with all its accents (Š, Ł, Ş, Č …), Greek and Cyrillic, for a class of characters."""
_LOW = re.escape("".join(letter for letter in _LETTERS if letter.islower()))

STAFF = (
    r"(?:electronically )?(?:co-?)?(?:signed|authenticated)(?: electronically)?(?: by)?"
    r"|(?:dictated|transcribed|reported|read|reviewed|approved|verified)(?: by)?"
    r"|(?:finali[sz]ed|interpreted|authori[sz]ed|validated|attested|prepared|typed|edited) by"
    r"|(?:interpreting |attending |reading )?(?:radiologists?|physicians?|doctors?)"
    r"|attending|resident|fellow|author|cc"
)
"""Names follow: they end the section before them."""

_PERSON = r"(?:patient(?:'?s|en|in)?|pte?\.?|pat\.?)"
_NO = r"(?:n[oº°]\.?|nr\.?|num(?:ber|mer|ero)?\.?|número|#)"
# Fields that need no colon: nothing clinical begins like this.
_ALONE = (
    rf"{_PERSON}[ \t-]*(?:full )?(?:name|id(?:entifier|entification)?|mrn|dob|birth ?date|nummer)"
    rf"|(?:{_PERSON}|hospital|medical record|record|account|acct\.?|visit|encounter|order|case|file|chart"
    rf"|episode|accession|admission)[ \t-]*(?:{_NO}(?=[ \t]*[:#=]|[ \t]+\w*\d)|id\b)"
    r"|names? of (?:the )?patient|(?:date of )?birth(?:-?day| ?date)?(?=[ \t]*:)|date of birth|birth ?date"
    r"|mrn|ssn|dob|d\.o\.b\.|nuhsa|social security|medical record|accession"
    r"|(?:nhs|nhc|dni|nif|nie)(?=[ \t]*(?:[:#]|\w?\d))"  # a patient may be DNI: not to be intubated
    r"|fecha de nac\w*\.?|f\.? ?nac\.|(?:n\.?[º°]|n\.|número) ?(?:de )?historia|nombre del? paciente"
    r"|geburtsdatum|geb\.(?:-?datum)?|geboren am|fall-?n(?:umme)?r\.?|aufnahme-?n(?:umme)?r\.?"
)
# Fields that are known by their colon.
_WITH_COLON = (
    rf"{_PERSON}|(?:first|last|given|family|full|middle|sur|maiden)? ?names?|no\.|number|id"
    r"|re|regarding|attn|attention|dear|to|from|author"
    r"|address|city|zip(?: code)?|(?:tele|cell|mobile )?phone|tel\.?|fax|mobile|pager|e-?mail"
    r"|(?:(?:referring|ordering|requesting|primary|attending|admitting) )?"
    r"(?:physician|doctor|clinician|provider|md)|referrer|referred by|ordered by|technologist"
    r"|hospital|institution|facility|department|ward|room|insurance"
    r"|nombres?(?: y apellidos)?|apellidos?|paciente"
    r"|direcci[oó]n|domicilio|tel[eé]fono|m[oó]vil|correo(?: electr[oó]nico)?|m[eé]dico(?: \w+)?"
    r"|radi[oó]log[oa]|firma(?:do)?(?: por)?|colegiad[oa]|servicio|habitaci[oó]n|centro|cip"
    r"|(?:vor|nach|familien|geburts)name|adresse|anschrift|wohnort|telefon|handy"
    r"|(?:zuweisender |behandelnder )?(?:arzt|ärztin)|überweiser|befunder|unterschrift"
    r"|gez\.?|oberarzt|oberärztin|chefarzt|abteilung|klinik|krankenhaus|versicherten-?n(?:umme)?r\.?"
    r"|krankenkasse|betreff|asunto"
)
# Fields without a name: a sentence may follow theirs.
_WHEN = (
    r"date of (?:exam(?:ination)?|service|study|report|admission|dictation)"
    r"|(?:(?:study|exam|service|report|dictation|dictated|transcribed|admission|print) )?(?:date|time)"
    r"|age|sex|gender|fecha(?: del? [\w ]{3,20})?|sexo|edad|datum|untersuchungsdatum|alter|geschlecht"
)
# "Location: right atrium." tells where something is, "Location: 3 East" where someone is.
_PLACE = (
    r"location(?=[ \t]*:)(?![^.\n]*\b(?:right|left|both|bilateral|upper|lower|mid\w*|ap(?:ex|ical)"
    r"|bas(?:e|al|ilar)|hil\w+|peri\w+|lobe|lung|atri\w+|ventric\w+|cav\w+|svc|pleur\w+|ribs?|chest"
    r"|carina|trachea\w*|lingula|stomach|subclavian|jugular|brachiocephalic|anterior|posterior|lateral)\b)"
)
_FIELD = re.compile(
    rf"(?P<start>^[ \t#*>•|–-]*)?(?<![\w.-])(?:(?P<alone>{_ALONE})(?!\w)[ \t]*[#:=]*"
    rf"|(?P<colon>(?P<when>{_WHEN})|{_WITH_COLON}|{_PLACE})[ \t*]*#?"
    r"(?:[ \t]*[:=]|(?P<dash>[ \t]+[-–—][ \t])))",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.;](?=\s)")
# A line of staff has a colon, a dash, a name or a date behind its word.
_STAFF_LINE = re.compile(
    rf"[^\w\n]*(?i:{STAFF})[ \t]*(?::|[-–—][ \t]|(?i:(?<=by))[ \t]+(?=[{_UP}\d_])|(?i:on)\b[ \t]+\W*"
    r"(?:\d|[A-Z][a-z]{2,8}\b|_))"
)
_SALUTATION = re.compile(
    r"^[ \t]*(?:Dear|DEAR|Sehr geehrte[rs]?|Liebe[rs]?|Estimad[oa]s?|Attn|ATTN)\b[^,:!\n]{0,80}(?:[,:!]|$)"
)

# Words of radiology and of sentences: a line that has one is no name.
_SMALL = (
    "no not none nil the this that there these is are was were and or of in on at with without for by as to"
    " has have had see seen same new old prior since again within be may can will all any some one two ap"
    " pa ct mr mri us lat xr cxr ett picc ng og svc ivc copd chf tb iv i ii iii lung lungs heart chest rib"
    " ribs spine bone bones hila hilar hilum hilus mass masses node nodes line lines tube tubes port tip"
    " lead leads clip clips wire base bases apex gas air soft scar scars pain cough fever left right upper"
    " lower mid size view views film films exam study clear mild small large great acute sharp short male"
    " female swan ganz dobhoff dobbhoff hickman kerley patient report normal stable sin con de la el los"
    " aged call paciente patientin frau herr told called paged informed notified discussed dr drs"
    " dra dres mrs ms prof miss nurse pager page ein eine einem einen"
    " las en y un una und der die das kein keine mit ohne herz lunge rx tac torax time day days year years"
)
_ROOTS = (
    "unremark unchang negativ positiv moder sever minim slight chron interv increas decreas improv worsen"
    " persist resol possib probab likely limit cardi pulmon pleur effus pneum atelec consol opaci opacit"
    " infilt edema oedema nodul lesion fractur verteb thorac osse skelet medias aorti aorta diaphr trache"
    " bronch lobar lobe lingul apical basal basil bilat cathet pacem device hardwar surger surgic postop"
    " sterno calcif granul emphys hyper hypo degen tortu ather congest interst silhou contou radiog x-ray"
    " image imagin fronta latera portab supine upright erect compar techni indica histor impres findin"
    " conclu recomm clinic dyspne abdom stomach fluid tissue shoulde clavic humer foreign diseas infect"
    " tuberc sarcoi hernia breast nipple vascul costoph process evidenc abnorm visual demons presen absen"
    " intub examin osteop kypho scolio spondy arthr fibros asthm malig neopl tumor tumour carcin metas"
    " lymph sinus valv prosth bony struct appear intact artifa septal occlud border inferi superi scapul"
    " separa cholec rotate elevat blunt mildly grossl arter venous aneury ectas stenos plaque volum hemith"
    " thymus hallaz derech izquie befund beurte follow result inform unavai pending emergen"
)
_NO_NAME = rf"(?:(?:{'|'.join(_SMALL.split())})\b|(?:{'|'.join(_ROOTS.split())}))"
_CLINICAL = re.compile(rf"(?<!\w){_NO_NAME}", re.IGNORECASE)
_WORD = rf"[{_UP}][\w'’]{{0,30}}\w(?:-\w{{1,30}}){{0,3}}"
_CAPITAL = rf"(?!X{{2,}}\b)(?!(?i:{_NO_NAME})){_WORD}"
_INITIAL = rf"[{_UP}]\.?(?![\w'])"
_PARTICLE = (
    r"(?:de|del|della|la|las|los|le|les|du|des|von|van|vom|zu|zur|zum|der|den|ter|ten|te|di|da|do|dos"
    r"|das|al|el|bin|ibn|ben|bint|abu|af|av|san|y|e)"
)
_MORE = (
    rf"(?:,?[ \t]+(?:{_PARTICLE}[ \t]+){{0,2}}"
    rf"(?:{_CAPITAL}|{_INITIAL})){{0,4}}"
)
_NAME = rf"(?:{_INITIAL}[ \t]*){{0,2}}{_CAPITAL}{_MORE}"
# Any name, even one that is a word as well, as d'Angelo and O'Brien are, and those of scripts without
# capitals.
_ANY_WORD = rf"(?:(?:[dl]['’])?{_WORD}|(?![{_LOW}\d_])\w[\w'’-]{{0,30}})"
_AFTER_TITLE = (
    rf"(?!X{{2,}}\b)(?:{_PARTICLE}[ \t]+){{0,2}}(?:{_INITIAL}[ \t]*){{0,2}}{_ANY_WORD}"
    + _MORE.replace(",?", "")
)
_PROFESSION = r"(?:[ \t]*(?:med|Med|Dr|Priv|Doz|Prof)\.){0,6}+[ \t]*+"
_NURSE = r"urse(?:[ \t]+(?:practitioner|specialist|manager))?"
_BEFORE_NAME = rf"(?:{_PARTICLE}[ \t]+)?[{_UP}]"
_TITLE = (
    r"(?:(?:Dr|Dra|Drs|Dres|Prof|Professor|Doctor|Doctora|Docteur|Dott|Dottor|Mr|Mrs|Ms|Miss|Mx|Sr|Sra"
    r"|Srta|Herr|Herrn|Frau|Fr|Don|Doña|Señora?|Señorita|Mme|Mlle|Madame|Monsieur|Sister|Schwester"
    rf"|Pfleger|Enfermer[oa]|N{_NURSE})\b\.?"
    rf"|(?:dr|dra|drs|dres|prof|mr|mrs|sra|srta)\b\.?(?=[ \t]*{_BEFORE_NAME})"
    rf"|(?:n{_NURSE}|herrn?|frau|don|doña|señora?)\b(?=[ \t]+{_BEFORE_NAME})"
    rf"|(?<!\d )Hrn?(?=\.)\.|D\.?ª){_PROFESSION}"
)
# MR, MS and DR without their dot are magnetic resonance, a sclerosis and digital radiography, unless a name
# follows that is none of these.
_TECHNICAL = (
    r"(?:angio|arthro|venog|entero|cholangio|urog|spectro|perfus|elasto|mammo|defeco|scan|seq|brain"
    r"|head|neck|liver|pelvi|knee|hip|cardio|coron|correl|safe|unsafe|condit|system|equip|detect|plate"
    r"|unit|panel|cassett|digital|plaque|flare|exacer|relaps|guid|contras|study|studies|protoc|machine"
    r"|suite|room|depart|and|or|to|dose)"
)
_LOUD = (
    r"(?:(?:DR|DRA|DRS|DRES|PROF|MRS)\."
    rf"|(?:DR|DRA|DRS|MR|MRS|MS|MISS|PROF|NURSE|FRAU|HERR|DON|SRA)(?=[ \t]+(?!(?i:{_TECHNICAL}))"
    rf"(?!(?i:{_NO_NAME}))[{_UP}][{_UP}'’-])){_PROFESSION}"
)
# In a text without capitals.
_QUIET = (
    r"(?:(?:dr|dra|drs|prof)\.[ \t]*"
    r"|(?:(?<=with )|(?<=told )|(?<=by )|(?<=from )|(?<=per ))(?:dr|dra|drs|prof)[ \t]+)"
)
# Who somebody is, and then a name: resident Lee, RN Kelly.
_OFFICE = (
    r"(?:(?i:attending|resident|intern|surgeon|radiologist|physician|technologist|sonographer"
    r"|oberarzt|oberärztin|assistenzarzt|assistenzärztin|radi[oó]log[oa]|m[eé]dic[oa])|RN|NP|LPN|CRNA)"
    rf"[ \t]+(?=[{_UP}][{_LOW}])"
)
# Drs. Brown, Green and Black
_SEVERAL = r"(?:Drs|DRS|Dres|DRES|drs|dres|Mr\.? and Mrs|MR\.? AND MRS|Profs?)\b\.?[ \t]+"
_OTHERS = (
    r"(?:(?:[ \t]*,[ \t]*(?:and[ \t]+)?|[ \t]*(?:/|&|\band\b|\bund\b|\by\b|\bet\b)[ \t]*)"
    rf"{_CAPITAL}{_MORE}){{1,6}}"
)
_DEGREE = (
    r"(?:M\.[ \t]?D\b\.?|MD\b|D\.[ \t]?O\b\.?|(?:MBBS|MBChB|FRCR|FRCPC|FACR|PHD)\b|Ph\.?[ \t]?D\b\.?"
    r"|(?<=,)[ \t]*(?:DO(?![ \t]+(?i:not))|RN|NP|PA-C|RRT|MPH)\b)"
)
_ROLE = (
    r"(?i:radiolog\w*|attending|resident|fellow|staff|physician|chief|consultant|doctor|neuroradiolog\w*"
    r"|electronically|signed|dictated|reported|by|on|at|the|of|department|date|time|[ap]\.?m\.?"
    r"|radi[oó]log[oa]|facharzt|fachärztin|(?:ober|chef)?(?:arzt|ärztin)|für|radiologie)"
)
_TAIL = rf"(?:[\s\d/:.,;()|_–—-]|{_ROLE}(?!\w)|{_DEGREE})*$"
# A signature: a name with a degree or a title, perhaps what the person is and a date.
_SIGNATURE = re.compile(
    rf"[ \t*>–—-]*(?:(?:{_TITLE}|{_LOUD})?{_NAME}[ \t]*,?[ \t]*{_DEGREE}"
    rf"|{_TITLE}{_AFTER_TITLE}|{_LOUD}{_NAME}){_TAIL}"
)
# Two to five words that may be a name, by their letters and their words: a line of its own …
_NAME_LINE = re.compile(rf"[ \t*>]*(?=\S+,?[ \t]+\S){_NAME}[ \t]*,?[ \t]*$")
# … or at the begin of a line or sentence, and then a date or a field.
_NAME_BEFORE = rf"(?:(?<=[.;:] )|^[ \t*>]*)(?=\S+[ \t]+\S){_NAME}[ \t,]*"
_NAME_AND_END = re.compile(rf"{_NAME_BEFORE}$")
_NAME_AND_GAP = re.compile(rf"{_NAME_BEFORE}(?={GAP})")

_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_FULL = (
    r"(?:January|February|March|April|June|July|August|September|October|November|December"
    r"|Januar|Jänner|Februar|März|Juni|Juli|Oktober|Dezember"
    r"|ener|febrer|marz|abril|juni|juli|agost|septiembr|setiembr|octubr|noviembr|diciembr)[oe]?"
)
_ANY = rf"(?:{_FULL}|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Okt|Nov|Dec|Dez)\.?|Mayo?|Mai)"
_TH = r"(?:st|nd|rd|th)?"
_BEFORE = (
    r"(?:(?<=fech )|(?<=fecha )|(?<=dia )|(?<=día )|(?<=previ )|(?<=estudi )|(?<=control )|(?<=ayer )"
    r"|(?<=anterior )|(?<=rx )|(?<=radiografi )|(?<=comp )|(?<=compar )|(?<=con )|(?<=realiz ))"
)
_DATE = (
    rf"{_YEAR}[-/.]{_MONTH}[-/.]{_DAY}(?:T\d\d:?\d\d(?::?\d\d)?(?:\.\d+)?Z?)?(?!\d)"
    rf"|(?<!ribs )(?<!levels )(?:{_DAY}(?P<dm>[/.]){_MONTH}(?P=dm)"
    rf"|{_MONTH}(?P<md>[/.]){_DAY}(?P=md))(?:{_YEAR}|\d\d)(?![\d/])"
    rf"|(?:{_DAY}[- ]{_MONTH}|{_MONTH}[- ]{_DAY})[- ]{_YEAR}(?!\d)"
    # as in PadChest, whose texts have lost their punctuation
    rf"|{_BEFORE}(?:{_DAY} {_MONTH} \d\d|\d[\d ]{{0,9}}{_YEAR})(?!\d)"
    rf"|{_DAY}{_TH}\.?[ -]?(?:of |de )?{_ANY},?(?:[ -]?(?:del? )?{_YEAR}|[ -]\d\d(?!\d| [cm]m))"
    rf"|{_ANY}[ -]{_DAY}{_TH},?[ -]{_YEAR}|{_ANY},?[ -]?(?:of |del? )?{_YEAR}"
    rf"|{_DAY}{_TH}\.? (?:of |de )?{_FULL}\b|{_FULL} {_DAY}{_TH}(?![\d.]* ?[cm]m)\b"
    r"|(?:(?<=fech )|(?<=fecha ))\d{1,2}(?: ?\.)? ?\d{1,2}(?: ?\.)? ?\d{2,5}"
    rf"|(?:(?<=dated )|(?<=on )|(?<=since )|(?<=compared to )|(?<=compared with )){_MONTH}/{_DAY}(?![\d/])"
)
_DOMAINS = (
    r"com|org|net|edu|gov|mil|int|info|biz|io|dev|app|cloud|health|hospital|clinic|care|local|lan"
)
_LABEL = r"[a-z\d][a-z\d-]{0,62}\."
_GLUED = r"mrn|nhc|nhs|ssn|dob|pid|patid|pat-?id|acc(?:ession)?[ \t]?(?:no|#)"
_CALL = (
    r"pager|pgr|beeper|bleep|piepser|busca|ext(?:ension)?\.?|phone|telephone|tel\.?|fax|cell|mobile"
    r"|durchwahl"
)
_NUMBER = (
    r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+|(?:\w+://|www\.)\S+"
    # without a scheme: two letters alone would be the first word of a sentence behind a forgotten blank
    rf"|(?:{_LABEL}){{1,4}}(?:{_DOMAINS})(?![\w-]|\.[a-z])(?:[:/]\S*)?"
    rf"|(?:{_LABEL}){{2,5}}[a-z]{{2}}(?![\w-])(?:[:/]\S*)?"
    rf"|(?:{_LABEL}){{1,4}}[a-z]{{2,12}}(?::\d+)?/\S*[\d?=&/]\S*"
    r"|\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?:/\S*)?(?![\w.])"
    rf"|(?i:{_GLUED})[ \t#:=-]{{0,4}}(?=\w{{0,4}}\d)\w+(?:[-/]\d\w*)*"
    rf"|(?i:{_CALL})[ \t]*(?i:no\.?|number|nr\.?)?[ \t]*[#:]?[ \t]*\d[\d -]{{1,14}}\d"
    r"|(?<!\d )(?<!\d)[xX][ \t]?\d{4,6}(?![.,]?\d)(?! ?[cm]m)"
    r"|\d{3}-\d{2}-\d{4}|\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}|\+\d[\d ()/-]{6,}\d"
    r"|(?<!HU )\d{3}-\d{4}(?! ?(?:HU|[cm]m|m[lg]))"
    r"|0\d{2,4}[/ -]\d{3,}(?:-\d+)?|\d+(?:\.\d+){4,}|[A-Z]{0,4}[-#]?\d{6,}\w*"
    r"|(?<=#)\d{4,}"
)
_WHEN_OR_NUMBER = re.compile(rf"(?<!\d)(?:(?<![\w.,])|(?<=fecha))(?:(?i:{_DATE})|{_NUMBER})(?!\w)")
_STREET = re.compile(
    r"\b\d{1,5}[ \t]+(?:[A-Z][\w'-]{1,30}[ \t]+){1,2}"
    r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Drive|Boulevard|Blvd)\b"
    r"|\b[A-ZÄÖÜ][\w'-]{1,30}(?:[ \t]+(?:Street|Road|Avenue|Lane|Straße|Strasse|Weg|Platz)"
    r"|(?:straße|strasse|allee|str\.))[ \t]+\d{1,4}\w?\b"
    r"|\b(?:Calle|Avenida|Plaza)[ \t]+(?:[\w.]+[ \t,]+){1,4}\d{1,4}\b"
)
# Of people above 89, who are few, an age says who it is.
_OLD = (
    r"(?:9\d|1[01]\d|(?i:ninety(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?"
    r"|(?:a|one)[ -]hundred(?:(?:[ -]and)?[ -](?:one|two|three|four|five|six|seven|eight|nine|ten))?))"
)
_YEARS = r"years?\b|yrs?\b|y[./]?o\b|y\b(?![-=:])|jahre?n?\b|jährig|jaehrig|jhr|años?\b|anos?\b|anni\b|ans\b"
_AGE = re.compile(
    rf"(?<![\w.,/-]){_OLD}(?:(?=[ \t-]{{0,2}}(?i:{_YEARS}))"
    r"|(?=[MF],?[ \t]+(?:with|w/|s/p|p/w|who|presenting|found|status)))"
    r"|(?i:(?<=\baged )|(?<=\bage )|(?<=\bage of )|(?<=\bage: )|(?<=\bedad )|(?<=\balter ))"
    rf"{_OLD}(?!\w|[.,]\d|%| ?[cm]m)"
)
# A printed page's header in the middle of a section.
_PAGE = re.compile(
    r"(?i:\b(?:page|seite|p[aá]gina|p[aá]g\.?|pg\.?|blatt))[ \t]*:?[ \t]*\d{1,3}"
    r"(?:[ \t]*(?i:of|von|de|/)[ \t]*\d{1,3}\b|[ \t]*$)|^[ \t]*\((?i:over|cont(?:inued|\.)?)\)[ \t]*$"
)
_INSTITUTION = re.compile(
    r"[\w .,'’&-]{0,60}\b(?i:hospital|medical cent(?:er|re)|health system|department of radiology|klinikum"
    r"|universitätsklinik|radiology department|servicio de radiolog[ií]a)\b[\w .,'’&-]{0,60}"
)
# "Dr. ___" and "by ___": what comes before the name stays.
_BY = (
    r"(?i:signed|dictated|transcribed|reported|finali[sz]ed|interpreted|authori[sz]ed|validated|verified|approved"
    r"|read)[ \t]+(?i:electronically )?(?i:by):?[ \t]+"
)
_TITLED = re.compile(
    rf"(?<!\w)(?:(?P<several>{_SEVERAL}){_AFTER_TITLE}{_OTHERS}|(?P<before>{_TITLE}|{_BY}){_AFTER_TITLE}"
    rf"|(?P<loud>{_LOUD}|{_OFFICE}){_NAME}|(?P<quiet>{_QUIET})(?!(?i:{_NO_NAME}|{_TECHNICAL}))[{_LOW}][\w'’-]{{1,30}}"
    rf")(?:,?[ \t]*{_DEGREE})*"
)
# A name whose title, or first part, ends the line before.
_WRAPPED = re.compile(
    rf"(?<!\w)((?:{_TITLE}|(?:DR|DRA|DRS|PROF|MRS|MR|MS)\b\.?)(?:[ \t]*{_CAPITAL}|[ \t]*{_INITIAL}){{0,2}})"
    rf"[ \t]*\n(?:[ \t]*\n)?[ \t]*(?={_CAPITAL}(?![ \t]*:))"
)
# Whether it may be worth to look: found in a tenth of the time.
_HAS_TITLE = re.compile(
    r"D[rRoOª.]|[Pp][rRf][oOl]|M[rRisSIlaxmo]|S[re]|[Hh]err|HERR|F[rR]|\b[Bb][Yy]\b|[Nn]urse|NURSE|Sister"
    r"|SRA|Hrn?\.|RN|NP|LPN|(?i:attending|resident|intern|surgeon|radi[oó]log|physician|technolog|sonogr"
    r"|arzt|ärztin|m[eé]dic[oa])|\b(?:d|m|s|f|p)r|\bdon|\bdoña|\bseñor|Enf|\bsra|\bdres"
)
_HAS_DEGREE = re.compile(_DEGREE)
_WITH_DEGREE = re.compile(
    rf"{_NAME}(?:,?[ \t]+{_DEGREE})+(?![ \t]+(?i:aware|notified|informed|contacted))"
)


SectionStart = Callable[[str, int, int], int]
"""Where in a line, from a place on to another, the next section begins; the latter if none does."""


def without_identity(report: str, next_section: SectionStart) -> str:
    """The report without what identifies a person. A field ends with its line, or at the next section."""
    remaining: list[str] = []
    identity: list[bool] = []  # of each line: was something of it taken out as a whole
    waiting = False  # a field's value may stand in the next line
    report = _WRAPPED.sub(lambda name: f"{name[1]} ", report)
    for line in report.splitlines():
        if waiting and line.strip():
            section = next_section(line, 0, len(line)) < len(line)
            value = len(line) <= 60 and not section and not _CLINICAL.search(line)
            waiting, line = False, "" if value else line
        left = _less_fields(line, next_section)
        waiting = waiting or (not left.strip() and line.rstrip().endswith(":"))
        left = _with_gaps(_less_page(left))
        remaining.append(left)
        identity.append(left.strip() != line.strip() and GAP not in left)
    return "\n".join(_less_names(remaining, identity, next_section))


def _less_names(lines: list[str], identity: list[bool], next_section: SectionStart) -> list[str]:
    """The lines, those empty that are names: the first, the last of a section, or one beside identity."""

    def begins(line: str) -> bool:
        return next_section(line, 0, len(line)) == 0 < len(line)

    lines = list(lines)
    written = [index for index, line in enumerate(lines) if line.strip()]
    for number, index in enumerate(written if len(lines) > 1 else ()):
        if not _NAME_LINE.fullmatch(lines[index]):
            continue
        before = lines[written[number - 1]] if number else None
        after = lines[written[number + 1]] if index != written[-1] else None
        last = after is None or begins(after)
        beside = any(identity[max(index - 1, 0) : index + 2])
        if before is not None and begins(before) and ":" not in before.rstrip(" \t*:"):
            is_name = beside and not last  # under its header: it may be all that the section says
        else:
            is_name = beside or last or before is None
        if is_name:
            lines[index] = ""
    return lines


def _less_fields(line: str, next_section: SectionStart) -> str:
    """The line without its fields, salutation and signature; a section within it begins a line."""
    line = _SALUTATION.sub("", line)
    remaining: list[str] = []
    at = 0
    while at < len(line):
        if _SIGNATURE.fullmatch(line, at):
            break
        if staff := _STAFF_LINE.match(line, at):
            at = next_section(line, staff.end(), len(line))
            remaining.append("\n")
            continue
        field = _next_field(line, at)
        if field is None:
            remaining.append(line[at:])
            break
        sentence = _SENTENCE_END.search(line, field.end()) if field["when"] else None
        remaining += [_NAME_AND_END.sub("", line[at : field.start()]), "\n"]
        at = next_section(line, field.end(), sentence.end() if sentence else len(line))
    return "".join(remaining)


def _next_field(line: str, at: int) -> re.Match[str] | None:
    """Within a line a field has a capital, and no dash: "… of the patient - who" is none."""
    for field in _FIELD.finditer(line, at):
        name = field["alone"] or field["colon"]
        if field["start"] is not None or (not field["dash"] and name[0].isupper()):
            return field
    return None


def _less_page(line: str) -> str:
    """The line without "Page 2 of 3"; nothing of it, unless it says something clinical besides.

    A line that is the name of a hospital goes, too.
    """
    rest = _PAGE.sub("", line)
    if rest == line:
        institution = line[:1].isupper() and line[-1:] != "." and _INSTITUTION.fullmatch(line)
        return "" if institution and not _CLINICAL.search(line) else line
    return rest if _CLINICAL.search(rest) else ""


def _with_gaps(text: str) -> str:
    """Names, dates, numbers and addresses within sentences as gaps; nothing, if nothing else is there."""
    result = text
    if _HAS_TITLE.search(text):
        result = _TITLED.sub(
            lambda who: next(filter(None, who.group("several", "before", "loud", "quiet"))) + GAP,
            result,
        )
    if _HAS_DEGREE.search(text):
        result = _WITH_DEGREE.sub(GAP, result)
    result = _AGE.sub(GAP, _WHEN_OR_NUMBER.sub(GAP, _STREET.sub(GAP, result)))
    if result != text:
        result = _NAME_AND_GAP.sub("", result)
    return result if result == text or any(c.isalnum() for c in result) else ""
