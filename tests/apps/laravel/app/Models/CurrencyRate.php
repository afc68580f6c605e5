<?php

namespace App\Models;

class CurrencyRate extends CompanyRecord
{
}
